# `make` lists the targets. Every target works on a fresh clone with Rust.
SHELL := /bin/bash
# cargo's default folder, and the folder of tools from packaging/dev/deps.sh.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export PATH := $(PATH):$(HOME)/.cargo/bin:$(TARGET)/tools
# A separate workspace, so that jouled builds without libvirt.
LIBVIRT = --manifest-path daemon/libvirt/Cargo.toml --target-dir $(TARGET)/libvirt
# A separate workspace, as it is a process of its own that holds the sockets of container runtimes.
CONTAINERS = --manifest-path daemon/containers/Cargo.toml --target-dir $(TARGET)/containers
SCRIPTS = .ci/run $(shell find packaging tests -name '*.sh')

# Folders for `make install`, all below DESTDIR.
PREFIX ?= /usr
SYSCONFDIR ?= /etc
BINDIR ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc
LICENSEDIR ?= $(PREFIX)/share/licenses
# Debian has another folder for packages.
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
# Folders of the binaries to install; a cross build sets others.
BUILT ?= $(TARGET)/release
BUILT_LIBVIRT ?= $(TARGET)/libvirt/release
BUILT_CONTAINERS ?= $(TARGET)/containers/release
# The output of `make licences`. If it is missing, it is not installed; `make test-packages` checks that packages have it.
LICENCES ?= $(TARGET)/licences
INSTALL = install -p
# The manual pages of the helpers, and the others.
PAGES_LIBVIRT = $(wildcard man/jouled-libvirt.[1-9])
PAGES_CONTAINERS = $(wildcard man/jouled-containers.[1-9])
PAGES = $(filter-out $(PAGES_LIBVIRT) $(PAGES_CONTAINERS),$(wildcard man/*.[1-9]))

.PHONY: help build run install install-libvirt install-containers licences deb rpm release test-packages test test-build test-user test-root test-system test-vm libvirt test-libvirt containers test-containers fuzz chaos bench bpf bpf-check fmt lint test-browser
.PHONY: lint-shell lint-man
.DEFAULT_GOAL := help

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## The release binaries: jouled and joulectl
	@packaging/dev/deps.sh
	cargo build --release --locked --bins

run: ## Build, start a private jouled and show joulectl top until Ctrl-C (COUNT=3: three ticks). sudo make run measures more
	@packaging/dev/run.sh $(COUNT)

install: ## Install jouled from `make build`: DESTDIR=DIR, PREFIX=/usr. This is the only list of installed files
	$(INSTALL) -D -m 755 -t $(DESTDIR)$(BINDIR) $(BUILT)/jouled $(BUILT)/joulectl
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(UNITDIR) $(filter-out %/jouled-libvirt.service %/jouled-containers.service %/jouled-kubelet.service,$(wildcard systemd/jouled*.service systemd/jouled*.socket systemd/jouled*.timer))
	$(INSTALL) -D -m 644 systemd/jouled.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/jouled.conf
	$(INSTALL) -D -m 644 systemd/jouled.tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/jouled.conf
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/udev/rules.d systemd/60-jouled.rules
	$(INSTALL) -D -m 644 systemd/org.jouled1.conf $(DESTDIR)$(PREFIX)/share/dbus-1/system.d/org.jouled1.conf
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(PREFIX)/share/dbus-1/interfaces systemd/interfaces/org.jouled1.*.xml
	$(INSTALL) -D -m 644 systemd/org.jouled1.service $(DESTDIR)$(PREFIX)/share/dbus-1/system-services/org.jouled1.service
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(SYSCONFDIR)/jouled etc/jouled.toml etc/models.urls
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

install-libvirt: ## Install jouled-libvirt from `make libvirt`
	$(INSTALL) -D -m 755 -t $(DESTDIR)$(BINDIR) $(BUILT_LIBVIRT)/jouled-libvirt
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(UNITDIR) systemd/jouled-libvirt.service
	$(INSTALL) -D -m 644 systemd/jouled-libvirt.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/jouled-libvirt.conf
	$(foreach page,$(PAGES_LIBVIRT),$(INSTALL) -D -m 644 -t $(DESTDIR)$(MANDIR)/man$(patsubst .%,%,$(suffix $(page))) $(page) &&) true
	$(call install-licences,jouled-libvirt)

install-containers: ## Install jouled-containers from `make containers`
	$(INSTALL) -D -m 755 -t $(DESTDIR)$(BINDIR) $(BUILT_CONTAINERS)/jouled-containers
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(UNITDIR) systemd/jouled-containers.service systemd/jouled-kubelet.service
	$(INSTALL) -D -m 644 systemd/jouled-containers.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/jouled-containers.conf
	$(foreach page,$(PAGES_CONTAINERS),$(INSTALL) -D -m 644 -t $(DESTDIR)$(MANDIR)/man$(patsubst .%,%,$(suffix $(page))) $(page) &&) true
	$(call install-licences,jouled-containers)

define install-licences
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(LICENSEDIR)/$(1) LICENSE $(wildcard $(LICENCES)/$(1)/THIRD-PARTY)
	$(if $(wildcard $(LICENCES)/$(1)/$(1).cdx.json),$(INSTALL) -D -m 644 -t $(DESTDIR)$(DOCDIR)/$(1) $(LICENCES)/$(1)/$(1).cdx.json)
endef

licences: ## Check the licences of all crates against deny.toml; write their texts and an SBOM to target/licences
	@packaging/licences.py --self-test
	@packaging/licences.py --write $(TARGET)/licences

# BUILT= (and BUILT_LIBVIRT=, BUILT_CONTAINERS=) name the folder of existing binaries; without them, binaries are built for the packages.
PACKAGE = ARCH='$(ARCH)' VERSION='$(VERSION)' $(foreach name,BUILT BUILT_LIBVIRT BUILT_CONTAINERS,$(if $(findstring command,$(origin $(name))),$(name)='$($(name))'))

deb: ## Debian packages in target/deb (ARCH=arm64: cross build; VERSION=0.2.0~test; BUILT=target/release: use these binaries)
	$(PACKAGE) packaging/deb/build.sh

rpm: ## RPM packages in target/rpm, with the same variables
	$(PACKAGE) packaging/rpm/build.sh

release: ## The files of a release in target/dist (ARCHES="amd64 arm64"), from a clean and tagged commit: CONTRIBUTING.md
	ARCHES='$(ARCHES)' packaging/release.sh

test-packages: build ## Test the packages: contents, lintian, rpmlint, reproducible, installed, upgraded, removed
	@packaging/dev/deps.sh package
	@$(MAKE) --no-print-directory containers
	@if packaging/dev/deps.sh libvirt; then $(MAKE) --no-print-directory libvirt; fi
	packaging/test.sh

test: lint test-user ## Formatting, lints, shell scripts, then all tests; as root also make test-root
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory test-root; else echo "skip test-root: needs root"; fi

test-build: ## Build the tests and what they run; run none
	cargo test --locked --no-run

test-user: ## The tests that need no root
	@# More threads than processors, because most tests wait.
	tests/run.sh -- --skip root_ --test-threads 12

test-root: ## The tests that need root: eBPF programs, cgroups and CPU load on this kernel
	@[ "$$(id -u)" = 0 ] || { echo "test-root: needs root" >&2; exit 1; }
	@# Tests that measure or load the whole machine wait for each other: whole_machine in tests/integration/common.
	tests/run.sh root_ -- --include-ignored --test-threads 4

test-system: build ## Test the installed service in a booted Debian in a container: sandbox, reload, crashes, upgrade, purge
	tests/integration/system/run.sh

test-vm: build ## Test a booted Debian under emulation, with meters and guests (minutes)
	@if packaging/dev/deps.sh libvirt; then $(MAKE) --no-print-directory libvirt; fi
	tests/integration/vm/run.sh

test-browser: build ## Test the page in Chromium without a window, on a made-up machine: tests/integration/browser
	tests/integration/browser/browser.py $(BUILT)/jouled

libvirt: ## The release binary of jouled-libvirt, which links libvirt's C library
	@packaging/dev/deps.sh libvirt
	cargo build --release --locked $(LIBVIRT)

test-libvirt: ## Lints and tests of jouled-libvirt, with libvirt's test driver, and from libvirt to /metrics
	@packaging/dev/deps.sh libvirt
	cargo fmt --manifest-path daemon/libvirt/Cargo.toml --check
	cargo clippy --locked --all-targets $(LIBVIRT) -- -D warnings
	cargo test --locked $(LIBVIRT)
	cargo build --locked $(LIBVIRT)
	JOULED_LIBVIRT=$(TARGET)/libvirt/debug/jouled-libvirt cargo test --locked --test integration inventory::libvirt_

containers: ## The release binary of jouled-containers
	cargo build --release --locked $(CONTAINERS)

test-containers: ## Lints and tests of jouled-containers, with simulated runtimes, and from a runtime to /metrics
	cargo fmt --manifest-path daemon/containers/Cargo.toml --check
	cargo clippy --locked --all-targets $(CONTAINERS) -- -D warnings
	cargo test --locked $(CONTAINERS)
	cargo build --locked $(CONTAINERS)
	JOULED_CONTAINERS=$(TARGET)/containers/debug/jouled-containers cargo test --locked --test integration containers::helper_

fuzz: ## Fuzz targets, each for a minute (FUZZ_SECONDS=5, TARGET="core dbus"): tests/fuzz/README.md
	@# Without TARGET= on the command line, TARGET is cargo's folder.
	@FUZZ_SECONDS='$(FUZZ_SECONDS)' TARGET='$(if $(findstring command,$(origin TARGET)),$(TARGET))' tests/fuzz/run.sh

chaos: build ## jouled with kills, full disks, lying meters, hostile clients at once (CHAOS_SECONDS=600): tests/integration/chaos
	tests/integration/chaos/chaos.py $(BUILT)/jouled

bench: ## All benchmarks; need root
	cargo bench --locked

bpf: ## Build the committed eBPF object again
	packaging/dev/bpf.sh

bpf-check: ## Compare the committed eBPF object with a build of its source
	packaging/dev/bpf.sh --check

fmt: ## Format the code
	cargo fmt --all

lint: lint-shell lint-man ## Check formatting, lints, shell scripts and man pages; changes nothing
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

lint-shell:
	@for script in $(SCRIPTS); do bash -n "$$script" || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck -S warning $(SCRIPTS); else echo "lint: shellcheck is missing: scripts are only parsed"; fi

lint-man:
	@tests/integration/man/lint.sh
