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
# The binaries to install; a cross build names its own folders.
BUILT ?= $(TARGET)/release
BUILT_LIBVIRT ?= $(TARGET)/libvirt/release
INSTALL = install -p

.PHONY: help build run install install-libvirt test test-root test-system test-vm libvirt test-libvirt bench bpf bpf-check fmt lint lint-shell
.DEFAULT_GOAL := help

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
	$(INSTALL) -D -m 644 systemd/org.jouled1.service $(DESTDIR)$(PREFIX)/share/dbus-1/system-services/org.jouled1.service
	$(INSTALL) -D -m 644 etc/jouled.toml $(DESTDIR)$(SYSCONFDIR)/jouled/jouled.toml

install-libvirt: ## Installs jouled-libvirt, which `make libvirt` built
	$(INSTALL) -D -m 755 -t $(DESTDIR)$(BINDIR) $(BUILT_LIBVIRT)/jouled-libvirt
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(UNITDIR) systemd/jouled-libvirt.service
	$(INSTALL) -D -m 644 systemd/jouled-libvirt.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/jouled-libvirt.conf

test: lint ## Formatting, lints, shell scripts, then every test; those that need root only as root
	cargo test --locked -- --skip root_
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
	JOULED_LIBVIRT=$(TARGET)/libvirt/debug/jouled-libvirt cargo test --locked --test inventory libvirt_

bench: ## Benchmarks
	cargo bench --locked

bpf: ## Rebuilds the committed eBPF object
	packaging/dev/bpf.sh

bpf-check: ## Whether the committed eBPF object is what its source builds
	packaging/dev/bpf.sh --check

fmt: ## Formats the code
	cargo fmt --all

lint: lint-shell ## Formatting and lints; changes nothing
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

lint-shell:
	@for script in $(SCRIPTS); do bash -n "$$script" || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck -S warning $(SCRIPTS); else echo "lint: no shellcheck: scripts are only parsed"; fi
