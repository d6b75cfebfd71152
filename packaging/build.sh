#!/bin/bash
# Builds the binaries that packages hold: with line tables, and with no path of this checkout or this user in them, so that every checkout
# gives the same bytes. Prints where each is.
#
#   build.sh [ARCH]    ARCH: amd64 (x86_64) or arm64 (aarch64); default: this machine's
#
# Prints BUILT=DIR, and BUILT_LIBVIRT=DIR where there is a libvirt to build with.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh
arch=$(debian_arch "${1:-}")
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
triple=$(rust_triple "$arch")

packaging/dev/deps.sh >&2
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# From where to where; the last that fits counts. The sources of crates lie in a folder that is named after where they came from. C has its
# own word for it: a crate with C code in it names its folder in its debug information, and the linker sums that up in the build id.
maps=("$(rustc --print sysroot)=/rust" "$cargo_home=/cargo")
for registry in "$cargo_home"/registry/src/*/; do
    maps+=("${registry%/}=/cargo/crates")
done
maps+=("$PWD=/jouled" "$target=/jouled/target")
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\037'; echo "${maps[*]/#/--remap-path-prefix=}")
CFLAGS="${CFLAGS:-} ${maps[*]/#/-ffile-prefix-map=}"
export CARGO_ENCODED_RUSTFLAGS CFLAGS

options=(--profile packaged --locked) out=packaged
# Not where it is this machine's: build scripts and what they build would be built twice.
if [ "$arch" != "$(debian_arch)" ]; then
    packaging/dev/deps.sh cross >&2
    options+=(--target "$triple") out=$triple/packaged
    linker=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_LINKER
    export "$linker=$(gnu_triple "$arch")-gcc" "CC_${triple//-/_}=$(gnu_triple "$arch")-gcc"
fi

cargo build "${options[@]}" --bins >&2
echo "BUILT=$target/$out"
if [ "$arch" != "$(debian_arch)" ]; then
    echo "build: jouled-libvirt is not cross-built: it links a libvirt of that machine" >&2
elif packaging/dev/deps.sh libvirt >&2; then
    cargo build "${options[@]}" --manifest-path daemon/libvirt/Cargo.toml --target-dir "$target/libvirt" >&2
    echo "BUILT_LIBVIRT=$target/libvirt/$out"
else
    echo "build: jouled-libvirt is not built: there is no libvirt to build with" >&2
fi
