#!/bin/bash
# Gets missing tools for building and testing jouled, on Debian and its derivatives. It does not install Rust: use rustup.
#
#   deps.sh          a C linker
#   deps.sh test     also prometheus, promtool, prometheus-node-exporter, mandoc, snmpd, upsd with dummy-ups, mosquitto and ipmi_sim.
#                    They are unpacked into the target folder, because installing Debian's packages would start services. Also
#                    dbus-daemon, iasl, chromium and its driver, and libraries of snmpd, upsd and mosquitto, whose packages start none
#   deps.sh libvirt  also libvirt's headers, and libvirtd for tests, which is unpacked for the same reason
#   deps.sh package  also the tools that make and check Debian packages, RPMs, manual pages and completions
#   deps.sh machines also the tools that build the root file systems of the machines that tests boot
#   deps.sh cross    also Rust's library and a C compiler for arm64
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools

main() {
    command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] || {
        echo "deps: cargo is missing: install Rust from https://rustup.rs" >&2
        exit 1
    }
    command -v cc >/dev/null || install_cc
    case "${1:-}" in
    test)
        unpack prometheus usr/bin/prometheus
        unpack prometheus usr/bin/promtool
        unpack prometheus-node-exporter usr/bin/prometheus-node-exporter
        unpack mandoc usr/bin/mandoc
        unpack_server snmpd usr/sbin/snmpd
        unpack_server nut-server lib/nut/upsd lib/nut/dummy-ups
        unpack_server mosquitto usr/sbin/mosquitto
        install_dbus_daemon
        install_commands iasl:acpica-tools
        install_chromium
        unpack_ipmi_sim
        ;;
    libvirt)
        install_libvirt
        unpack libvirt-daemon usr/sbin/libvirtd
        ;;
    package)
        install_commands dh:debhelper dpkg-buildpackage:dpkg-dev lintian rpmbuild:rpm rpmlint debugedit eu-strip:elfutils mandoc python3 zsh fish
        unpack busybox-static bin/busybox
        ;;
    machines)
        install_commands mmdebstrap cpio xz:xz-utils mke2fs:e2fsprogs
        ;;
    cross)
        rustup target list --installed | grep -x aarch64-unknown-linux-gnu >/dev/null || rustup target add aarch64-unknown-linux-gnu
        install_commands aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu
        ;;
    esac
}

install_cc() {
    echo "deps: installing a C compiler, which Rust needs as its linker: apt-get install gcc libc6-dev"
    as_root apt-get -q update || true
    as_root apt-get -qy install --no-install-recommends gcc libc6-dev && command -v cc >/dev/null || {
        echo "deps: the C linker (cc) is missing: as root, apt-get install gcc libc6-dev; on other distributions, install the package with cc" >&2
        exit 1
    }
}

install_libvirt() {
    pkg-config --exists libvirt 2>/dev/null && return
    echo "deps: installing libvirt's headers: apt-get install libvirt-dev pkg-config"
    as_root apt-get -q update || true
    as_root apt-get -qy install --no-install-recommends libvirt-dev pkg-config && pkg-config --exists libvirt || {
        echo "deps: libvirt is missing: as root, apt-get install libvirt-dev pkg-config; on other distributions, install the packages with libvirt.pc and pkg-config" >&2
        exit 1
    }
}

# Installs the packages of missing commands. Each argument is COMMAND or COMMAND:PACKAGE.
install_commands() {
    local word missing=()
    for word; do command -v "${word%%:*}" >/dev/null || missing+=("${word##*:}"); done
    [ "${#missing[@]}" != 0 ] || return 0
    echo "deps: installing ${missing[*]}"
    as_root apt-get -q update || true
    as_root apt-get -qy install --no-install-recommends "${missing[@]}" || {
        echo "deps: as root, apt-get install ${missing[*]}; on other distributions, install the packages with these commands" >&2
        exit 1
    }
}

# The tests also use busctl if it exists; it is part of systemd.
install_dbus_daemon() {
    command -v dbus-daemon >/dev/null && return
    as_root apt-get -qy install --no-install-recommends dbus-daemon >/dev/null 2>&1 && command -v dbus-daemon >/dev/null ||
        echo "deps: dbus-daemon is missing: tests that need a bus will be skipped"
}

# Debian's own Python has selenium, whatever python3 is first in PATH.
install_chromium() {
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null && /usr/bin/python3 -c 'import selenium' 2>/dev/null; then return; fi
    as_root apt-get -qy install --no-install-recommends chromium chromium-driver python3-selenium fonts-dejavu-core >/dev/null 2>&1 ||
        echo "deps: chromium, chromedriver or python3-selenium is missing: make test-browser will be skipped"
}

# Gets one program of a package without installing the package. If the program is missing, tests that need it print that they are skipped.
unpack() {
    local package=$1 file=$2 name dir
    name=$(basename "$file")
    if command -v "$name" >/dev/null || [ -x "$tools/$name" ]; then return; fi
    dir=$(mktemp -d)
    if (
        chmod 755 "$dir" && cd "$dir"
        apt-get -q download "$package" || { as_root apt-get -q update && apt-get -q download "$package"; }
        dpkg-deb -x "$package"_*.deb .
    ) >"$dir.log" 2>&1; then
        mkdir -p "$tools" && cp "$dir/$file" "$tools/"
        echo "deps: $name is in $tools"
    else
        echo "deps: $name is missing: $(tail -n 1 "$dir.log")"
    fi
    rm -rf "$dir" "$dir.log"
}

# Gets programs of a server's package without installing the package, and installs the libraries that it depends on.
unpack_server() {
    local package=$1 file dir missing=()
    shift
    for file; do
        PATH=$PATH:$tools:/usr/sbin:/usr/lib/nut:/lib/nut command -v "$(basename "$file")" >/dev/null || missing+=("$file")
    done
    [ "${#missing[@]}" != 0 ] || return 0
    dir=$(mktemp -d)
    if (
        chmod 755 "$dir" && cd "$dir"
        apt-get -q download "$package" || { as_root apt-get -q update && apt-get -q download "$package"; }
        dpkg-deb -x "$package"_*.deb root
        # One dependency a line; of alternatives the first.
        dpkg-deb -f "$package"_*.deb Depends | tr , '\n' | sed -nE 's/^ *(lib[^ |:(]*).*/\1/p' >libraries
        # shellcheck disable=SC2046
        as_root apt-get -qy install --no-install-recommends $(cat libraries)
    ) >"$dir.log" 2>&1; then
        mkdir -p "$tools"
        for file in "${missing[@]}"; do
            # Where /lib is /usr/lib, packages have one or the other.
            if [ -e "$dir/root/$file" ]; then cp "$dir/root/$file" "$tools/"; else cp "$dir/root/usr/$file" "$tools/"; fi
            echo "deps: $(basename "$file") is in $tools"
        done
    else
        echo "deps: $* of $package is missing: $(tail -n 1 "$dir.log")"
    fi
    rm -rf "$dir" "$dir.log"
}

# Gets OpenIPMI's BMC simulator with its libraries and headers, and writes a script ipmi_sim that sets the library path.
unpack_ipmi_sim() {
    local dir root=$tools/openipmi
    # The simulator is extended by a module, which needs the headers.
    if [ -x "$tools/ipmi_sim" ] || { command -v ipmi_sim >/dev/null && [ -e /usr/include/OpenIPMI/msg.h ]; }; then return; fi
    dir=$(mktemp -d)
    if (
        chmod 755 "$dir" && cd "$dir"
        set -- openipmi libopenipmi0 libopenipmi-dev libpopt0
        apt-get -q download "$@" || { as_root apt-get -q update && apt-get -q download "$@"; }
        for package in *.deb; do dpkg-deb -x "$package" root; done
    ) >"$dir.log" 2>&1; then
        rm -rf "$root" && mkdir -p "$tools" && cp -r "$dir/root" "$root"
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$(dirname "$root"/usr/lib/*/libIPMIlanserv.so.0)" "$root/usr/bin/ipmi_sim" \
            >"$tools/ipmi_sim"
        chmod 755 "$tools/ipmi_sim"
        echo "deps: ipmi_sim is in $tools"
    else
        echo "deps: ipmi_sim is missing: $(tail -n 1 "$dir.log")"
    fi
    rm -rf "$dir" "$dir.log"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

main "$@"
