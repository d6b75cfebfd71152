#!/bin/bash
# Builds the binaries of the packages: with line tables, and without paths of this checkout or this user, so that every checkout gives the
# same bytes.
#
#   build.sh [ARCH]    ARCH: amd64 (x86_64) or arm64 (aarch64); default: this machine's
#
# Prints BUILT=DIR, BUILT_CONTAINERS=DIR, and BUILT_LIBVIRT=DIR if libvirt is available to build with.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh
arch=$(debian_arch "${1:-}")
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
triple=$(rust_triple "$arch")

packaging/dev/deps.sh >&2
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# Path prefixes and their replacements; the last match applies. The folder with the sources of crates is named after the registry. C needs
# its own option: a crate with C code has its folder in its debug information, and the build id depends on that.
maps=("$(rustc --print sysroot)=/rust" "$cargo_home=/cargo")
for registry in "$cargo_home"/registry/src/*/; do
    maps+=("${registry%/}=/cargo/crates")
done
maps+=("$PWD=/jouled" "$target=/jouled/target")
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\037'; echo "${maps[*]/#/--remap-path-prefix=}")
CFLAGS="${CFLAGS:-} ${maps[*]/#/-ffile-prefix-map=}"
export CARGO_ENCODED_RUSTFLAGS CFLAGS

options=(--profile packaged --locked) out=packaged
# Only for another architecture: with --target, cargo builds build scripts and their dependencies a second time.
if [ "$arch" != "$(debian_arch)" ]; then
    packaging/dev/deps.sh cross >&2
    options+=(--target "$triple") out=$triple/packaged
    linker=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_LINKER
    export "$linker=$(gnu_triple "$arch")-gcc" "CC_${triple//-/_}=$(gnu_triple "$arch")-gcc"
fi

cargo build "${options[@]}" --bins >&2
echo "BUILT=$target/$out"
cargo build "${options[@]}" --manifest-path daemon/containers/Cargo.toml --target-dir "$target/containers" >&2
echo "BUILT_CONTAINERS=$target/containers/$out"
if [ "$arch" != "$(debian_arch)" ]; then
    echo "build: jouled-libvirt is not cross-built, because it links the libvirt of the target machine" >&2
elif packaging/dev/deps.sh libvirt >&2; then
    cargo build "${options[@]}" --manifest-path daemon/libvirt/Cargo.toml --target-dir "$target/libvirt" >&2
    echo "BUILT_LIBVIRT=$target/libvirt/$out"
else
    echo "build: jouled-libvirt is not built, because libvirt is not available" >&2
fi
