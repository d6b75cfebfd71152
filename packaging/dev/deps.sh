#!/bin/bash
# Gets what building and testing jouled needs and this machine lacks, on Debian and its relatives. Rust itself it leaves to rustup.
#
#   deps.sh          a C linker
#   deps.sh test     and promtool, unpacked into the target folder: installing Debian's prometheus would start a service
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools

main() {
    command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] || {
        echo "deps: no cargo: install Rust, see https://rustup.rs" >&2
        exit 1
    }
    command -v cc >/dev/null || install_cc
    [ "${1:-}" != test ] || command -v promtool >/dev/null || [ -x "$tools/promtool" ] || unpack_promtool
}

install_cc() {
    echo "deps: installing a C compiler, which Rust links with: apt-get install gcc libc6-dev"
    as_root apt-get -q update || true
    as_root apt-get -qy install --no-install-recommends gcc libc6-dev && command -v cc >/dev/null || {
        echo "deps: no C linker (cc): as root, apt-get install gcc libc6-dev; elsewhere the package that has cc" >&2
        exit 1
    }
}

# Tests that want promtool say that they are skipped where it is missing.
unpack_promtool() {
    local dir
    dir=$(mktemp -d)
    if (
        chmod 755 "$dir" && cd "$dir"
        apt-get -q download prometheus || { as_root apt-get -q update && apt-get -q download prometheus; }
        dpkg-deb -x prometheus_*.deb .
    ) >"$dir.log" 2>&1; then
        mkdir -p "$tools" && cp "$dir/usr/bin/promtool" "$tools/"
        echo "deps: promtool is in $tools"
    else
        echo "deps: no promtool: $(tail -n 1 "$dir.log")"
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
