#!/bin/bash
# Gets what building and testing jouled needs and this machine lacks, on Debian and its relatives. Rust itself it leaves to rustup.
#
#   deps.sh          a C linker
#   deps.sh test     and promtool and prometheus-node-exporter, unpacked into the target folder: installing Debian's packages would
#                    start services
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools

main() {
    command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] || {
        echo "deps: no cargo: install Rust, see https://rustup.rs" >&2
        exit 1
    }
    command -v cc >/dev/null || install_cc
    if [ "${1:-}" = test ]; then
        unpack prometheus promtool
        unpack prometheus-node-exporter prometheus-node-exporter
    fi
}

install_cc() {
    echo "deps: installing a C compiler, which Rust links with: apt-get install gcc libc6-dev"
    as_root apt-get -q update || true
    as_root apt-get -qy install --no-install-recommends gcc libc6-dev && command -v cc >/dev/null || {
        echo "deps: no C linker (cc): as root, apt-get install gcc libc6-dev; elsewhere the package that has cc" >&2
        exit 1
    }
}

# unpack PACKAGE PROGRAM. Tests that want the program say that they are skipped where it is missing.
unpack() {
    local package=$1 program=$2 dir
    if command -v "$program" >/dev/null || [ -x "$tools/$program" ]; then
        return
    fi
    dir=$(mktemp -d)
    if (
        chmod 755 "$dir" && cd "$dir"
        apt-get -q download "$package" || { as_root apt-get -q update && apt-get -q download "$package"; }
        dpkg-deb -x "$package"_*.deb .
    ) >"$dir.log" 2>&1; then
        mkdir -p "$tools" && cp "$dir/usr/bin/$program" "$tools/"
        echo "deps: $program is in $tools"
    else
        echo "deps: no $program: $(tail -n 1 "$dir.log")"
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
