# What can be done here; `make` lists it. Every target works on a fresh clone with Rust.
SHELL := /bin/bash
# Rust's own folder, and where packaging/dev/deps.sh puts tools.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export PATH := $(PATH):$(HOME)/.cargo/bin:$(TARGET)/tools
# A workspace of its own: the base builds without libvirt.
LIBVIRT = --manifest-path daemon/libvirt/Cargo.toml --target-dir $(TARGET)/libvirt
SCRIPTS = .ci/run $(shell find packaging tests -name '*.sh')

# Where `make install` puts what is built: DESTDIR before everything.
PREFIX ?= /usr
SYSCONFDIR ?= /etc
BINDIR ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc
LICENSEDIR ?= $(PREFIX)/share/licenses
# Debian keeps a folder of its own for packages.
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
# The binaries to install; a cross build names its own folders.
BUILT ?= $(TARGET)/release
BUILT_LIBVIRT ?= $(TARGET)/libvirt/release
# What `make licences` wrote. Without it nothing of it is installed; packages are checked to have it.
LICENCES ?= $(TARGET)/licences
INSTALL = install -p
# Both lists of manual pages by section: those of jouled-libvirt and the others.
PAGES_LIBVIRT = $(wildcard man/jouled-libvirt.[1-9])
PAGES = $(filter-out $(PAGES_LIBVIRT),$(wildcard man/*.[1-9]))

.PHONY: help build run install install-libvirt licences deb rpm release test-packages test test-root test-system test-vm libvirt test-libvirt bench bpf bpf-check fmt lint
.PHONY: lint-shell lint-man
.DEFAULT_GOAL := help

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## The release binaries: jouled and joulectl
	@packaging/dev/deps.sh
	cargo build --release --locked --bins

run: ## Builds, starts a private jouled and shows joulectl top until Ctrl-C (COUNT=3: three ticks); sudo make run measures more
	@packaging/dev/run.sh $(COUNT)

install: ## Installs what `make build` (and `make libvirt`) built: DESTDIR=DIR, PREFIX=/usr. The one list of installed files
	$(INSTALL) -D -m 755 -t $(DESTDIR)$(BINDIR) $(BUILT)/jouled $(BUILT)/joulectl
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(UNITDIR) $(filter-out %/jouled-libvirt.service,$(wildcard systemd/jouled*.service systemd/jouled*.socket))
	$(INSTALL) -D -m 644 systemd/jouled.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/jouled.conf
	$(INSTALL) -D -m 644 systemd/jouled.tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/jouled.conf
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/udev/rules.d systemd/60-jouled.rules
	$(INSTALL) -D -m 644 systemd/org.jouled1.conf $(DESTDIR)$(PREFIX)/share/dbus-1/system.d/org.jouled1.conf
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(PREFIX)/share/dbus-1/interfaces systemd/interfaces/org.jouled1.*.xml
	$(INSTALL) -D -m 644 systemd/org.jouled1.service $(DESTDIR)$(PREFIX)/share/dbus-1/system-services/org.jouled1.service
	$(INSTALL) -D -m 644 etc/jouled.toml $(DESTDIR)$(SYSCONFDIR)/jouled/jouled.toml
	$(INSTALL) -d -m 755 $(DESTDIR)$(SYSCONFDIR)/jouled/jouled.toml.d
	$(foreach page,$(PAGES),$(INSTALL) -D -m 644 -t $(DESTDIR)$(MANDIR)/man$(patsubst .%,%,$(suffix $(page))) $(page) &&) true
	for program in jouled joulectl; do \
		$(INSTALL) -D -m 644 packaging/completions/$$program.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$program && \
		$(INSTALL) -D -m 644 -t $(DESTDIR)$(ZSHDIR) packaging/completions/_$$program && \
		$(INSTALL) -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d packaging/completions/$$program.fish || exit 1; \
	done
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(DOCDIR)/jouled README.md CHANGELOG.md
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(DOCDIR)/jouled/docs docs/*.md
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(DOCDIR)/jouled/docs/prometheus docs/prometheus/*.yml
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(DOCDIR)/jouled/docs/grafana docs/grafana/*.json
	$(call install-licences,jouled)

install-libvirt: ## Installs jouled-libvirt, which `make libvirt` built
	$(INSTALL) -D -m 755 -t $(DESTDIR)$(BINDIR) $(BUILT_LIBVIRT)/jouled-libvirt
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(UNITDIR) systemd/jouled-libvirt.service
	$(INSTALL) -D -m 644 systemd/jouled-libvirt.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/jouled-libvirt.conf
	$(foreach page,$(PAGES_LIBVIRT),$(INSTALL) -D -m 644 -t $(DESTDIR)$(MANDIR)/man$(patsubst .%,%,$(suffix $(page))) $(page) &&) true
	$(call install-licences,jouled-libvirt)

define install-licences
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(LICENSEDIR)/$(1) LICENSE $(wildcard $(LICENCES)/$(1)/THIRD-PARTY)
	$(if $(wildcard $(LICENCES)/$(1)/$(1).cdx.json),$(INSTALL) -D -m 644 -t $(DESTDIR)$(DOCDIR)/$(1) $(LICENCES)/$(1)/$(1).cdx.json)
endef

licences: ## Whether every crate's licence is one that deny.toml allows; their texts and an SBOM, in target/licences
	@packaging/licences.py --self-test
	@packaging/licences.py --write $(TARGET)/licences

# Binaries that are there already, if BUILT= (and BUILT_LIBVIRT=) names their folder; else they are built for packages.
PACKAGE = ARCH='$(ARCH)' VERSION='$(VERSION)' $(foreach name,BUILT BUILT_LIBVIRT,$(if $(findstring command,$(origin $(name))),$(name)='$($(name))'))

deb: ## Debian packages in target/deb (ARCH=arm64 is cross-built; VERSION=0.2.0~test gives another; BUILT=target/release takes that)
	$(PACKAGE) packaging/deb/build.sh

rpm: ## RPM packages in target/rpm, with the same words
	$(PACKAGE) packaging/rpm/build.sh

release: ## The files of a release in target/dist (ARCHES="amd64 arm64"). Refuses a tree that is not ready: CONTRIBUTING.md
	ARCHES='$(ARCHES)' packaging/release.sh

test-packages: build ## The packages of target/release: what is in them, lintian, rpmlint, the same twice; installed, upgraded, removed
	@packaging/dev/deps.sh package
	@if packaging/dev/deps.sh libvirt; then $(MAKE) --no-print-directory libvirt; fi
	packaging/test.sh

test: lint ## Formatting, lints, shell scripts, then every test; those that need root only as root
	@# More threads than processors: many tests wait for something that is slow on purpose.
	cargo test --locked -- --skip root_ --test-threads 6
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory test-root; else echo "skip test-root: needs root"; fi

test-root: ## The tests that need root: real eBPF, cgroups and burners on this kernel
	@[ "$$(id -u)" = 0 ] || { echo "test-root: needs root" >&2; exit 1; }
	cargo test --locked root_ -- --include-ignored --test-threads 1

test-system: build ## The installed service in a booted Debian in a container: sandbox, reload, crashes, upgrade, purge (a minute)
	tests/integration/system/run.sh

test-vm: build ## The tests in a booted Debian under emulation (minutes)
	@if packaging/dev/deps.sh libvirt; then $(MAKE) --no-print-directory libvirt; fi
	tests/integration/vm/run.sh

libvirt: ## The release binary of jouled-libvirt, which links libvirt's C library
	@packaging/dev/deps.sh libvirt
	cargo build --release --locked $(LIBVIRT)

test-libvirt: ## jouled-libvirt's lints and tests, with libvirt's test driver, and from libvirt to /metrics
	@packaging/dev/deps.sh libvirt
	cargo fmt --manifest-path daemon/libvirt/Cargo.toml --check
	cargo clippy --locked --all-targets $(LIBVIRT) -- -D warnings
	cargo test --locked $(LIBVIRT)
	cargo build --locked $(LIBVIRT)
	JOULED_LIBVIRT=$(TARGET)/libvirt/debug/jouled-libvirt cargo test --locked --test integration inventory::libvirt_

bench: ## Benchmarks
	cargo bench --locked

bpf: ## Rebuilds the committed eBPF object
	packaging/dev/bpf.sh

bpf-check: ## Whether the committed eBPF object is what its source builds
	packaging/dev/bpf.sh --check

fmt: ## Formats the code
	cargo fmt --all

lint: lint-shell lint-man ## Formatting and lints, of man pages, too; changes nothing
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

lint-shell:
	@for script in $(SCRIPTS); do bash -n "$$script" || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck -S warning $(SCRIPTS); else echo "lint: no shellcheck: scripts are only parsed"; fi

lint-man:
	@tests/integration/man/lint.sh
