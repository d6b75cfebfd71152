#!/bin/bash
# Builds the Debian package of the release before, for the upgrade case of `make test-system`, and prints its path. `packaging/previous-release`
# names the release. The package has the version 0~previous, so that every other one is an upgrade.
#
# The sources come from this repository's history, and are built as a debug build: dependencies that target/debug has are used, so only
# jouled itself is compiled. It is kept in target/previous, and built again when packaging/previous-release changes.
#
# Ends with 77, and the reason on standard error, where it cannot be built here.
set -euo pipefail
cd "$(dirname "$0")/.."
cannot=77
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
dir=$target/previous
name=$(grep -v '^#' packaging/previous-release | head -n 1)

main() {
    local commit built
    commit=$(git rev-parse --verify --quiet "$name^{commit}" 2>/dev/null) ||
        stop "this checkout has no history with $name (a shallow clone? git fetch --unshallow --tags)"
    command -v dpkg-buildpackage >/dev/null || stop "dpkg-buildpackage is missing: packaging/dev/deps.sh package"
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock 9
    built=$(cat "$dir/built" 2>/dev/null || true)
    if [ "$built" != "$commit" ] || [ -z "$(package)" ]; then
        build "$commit" >"$dir/log" 2>&1 || { tail -n 20 "$dir/log" >&2; echo "previous: $name could not be built, see $dir/log" >&2; exit 1; }
        echo "$commit" >"$dir/built"
    fi
    package
}

stop() {
    echo "previous: $1" >&2
    exit "$cannot"
}

package() {
    find "$dir/deb" -maxdepth 1 -name "jouled_*_$(dpkg --print-architecture).deb" 2>/dev/null | head -n 1
}

build() {
    rm -rf "$dir/source" "$dir/deb" "$dir/built"
    mkdir -p "$dir/source"
    git archive "$1" | tar -x -C "$dir/source"
    # Git must not take the folder for a part of this checkout, which ignores it.
    export GIT_CEILING_DIRECTORIES=$dir SOURCE_DATE_EPOCH
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$1")
    dependencies
    cd "$dir/source"
    export CARGO_TARGET_DIR=$dir/target
    cargo build --locked --bins
    # Debug information of a debug build is large, and nobody wants it here.
    strip "$CARGO_TARGET_DIR"/debug/jouled "$CARGO_TARGET_DIR"/debug/joulectl
    BUILT=$dir/target/debug BUILT_LIBVIRT=$dir/none OUT=$dir/deb VERSION=0~previous packaging/deb/build.sh
    # Only the package is kept.
    rm -rf "$dir/source" "$dir/target"
}

# What `cargo test` has compiled is taken from there. Not by links: cargo writes into these files.
dependencies() {
    [ -d "$target/debug/deps" ] || return 0
    mkdir -p "$dir/target/debug"
    tar -C "$target/debug" -c --exclude='*jouled*' --exclude='integration-*' --exclude='bench-*' deps build .fingerprint |
        tar -C "$dir/target/debug" -x
}

main "$@"
