#!/bin/sh
# Builds daemon-bpf/jouled.bpf.o. The object is committed, so that building jouled needs no BPF toolchain. `--check` builds it and compares it
# with the committed one.
#
# It needs bpf-linker, and a rustc with its library source (RUSTC; default: /usr/bin/rustc, else `rustup which --toolchain nightly rustc`).
set -eu
cd "$(dirname "$0")/../.."
check=false
[ "${1:-}" = --check ] && check=true

rustc=${RUSTC:-/usr/bin/rustc}
[ -x "$rustc" ] || rustc=$(rustup which --toolchain nightly rustc 2>/dev/null || true)
linker=$(command -v bpf-linker || echo "${CARGO_HOME:-$HOME/.cargo}/bin/bpf-linker")

unable() {
    if $check; then
        echo "bpf: skipped: $1; the committed object is not checked"
        exit 0
    fi
    echo "bpf: $1" >&2
    exit 1
}
[ -n "$rustc" ] && [ -x "$rustc" ] || unable "there is no rustc with library source"
[ -x "$linker" ] || unable "bpf-linker is missing (cargo install bpf-linker)"
sysroot=$("$rustc" --print sysroot)
[ -d "$sysroot/lib/rustlib/src/rust/library" ] || unable "$rustc has no library source (component rust-src)"

versions=$("$rustc" --version; "$linker" --version)
if $check && [ "$versions" != "$(cat daemon-bpf/TOOLCHAIN)" ]; then
    unable "the object was built with $(tr '\n' ',' <daemon-bpf/TOOLCHAIN) this machine has $(echo "$versions" | tr '\n' ',')"
fi

target=${CARGO_TARGET_DIR:-target}/bpf
# No debug information, one codegen unit and no absolute path: the object is the same from every checkout.
RUSTC=$rustc RUSTC_BOOTSTRAP=1 \
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_STRIP=none \
    CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037' -C debuginfo=0 -C linker="$linker" -C target-cpu=v2 \
        --remap-path-prefix="$PWD"=. --remap-path-prefix="${CARGO_HOME:-$HOME/.cargo}"=cargo)--remap-path-prefix="$sysroot"=rust \
    cargo build --quiet --release --locked -p jouled-bpf --bin jouled-bpf --features kernel \
    -Z build-std=core --target bpfel-unknown-none --target-dir "$target"
built=$target/bpfel-unknown-none/release/jouled-bpf

if $check; then
    cmp "$built" daemon-bpf/jouled.bpf.o || { echo "bpf: daemon-bpf/jouled.bpf.o differs from the build of its source: run make bpf" >&2; exit 1; }
    echo "bpf: the committed object equals the build of its source"
else
    cp "$built" daemon-bpf/jouled.bpf.o
    chmod 644 daemon-bpf/jouled.bpf.o
    echo "$versions" >daemon-bpf/TOOLCHAIN
    echo "bpf: daemon-bpf/jouled.bpf.o, $(wc -c <daemon-bpf/jouled.bpf.o) bytes"
fi
