# What the package builders share: names of architectures, the version, the time. Sourced at the top of the tree.
# shellcheck shell=bash

# Debian's name of an architecture; of this machine without one.
debian_arch() {
    case "${1:-$(uname -m)}" in
    amd64 | x86_64) echo amd64 ;;
    arm64 | aarch64) echo arm64 ;;
    *) echo "packaging: no packages are built for ${1:-$(uname -m)}: ARCH is amd64 or arm64" >&2 && return 1 ;;
    esac
}

# The same in the words of Rust, of GNU and of rpm.
rust_triple() {
    case "$1" in amd64) echo x86_64-unknown-linux-gnu ;; arm64) echo aarch64-unknown-linux-gnu ;; esac
}

gnu_triple() {
    case "$1" in amd64) echo x86_64-linux-gnu ;; arm64) echo aarch64-linux-gnu ;; esac
}

rpm_arch() {
    case "$1" in amd64) echo x86_64 ;; arm64) echo aarch64 ;; esac
}

# The version of the workspace: the only place where it is kept. What else names it is checked against it.
cargo_version() {
    sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml
}

# When what is built was changed last: everything in a package is of that time.
source_date() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        echo "$SOURCE_DATE_EPOCH"
    elif git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git log -1 --format=%ct
    else
        stat -c %Y Cargo.lock
    fi
}

# The files of this tree, NUL between them: those that git knows or would take; without git, all but what is built.
source_files() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard --deduplicate | while IFS= read -r -d '' file; do
            [ ! -e "$file" ] || printf '%s\0' "$file"
        done
    else
        find . -path ./target -prune -o -type f -printf '%P\0'
    fi | LC_ALL=C sort -z
}

# The sources alone, into a folder, all of the time of the last change.
copy_sources() {
    source_files | tar --null -T - -c --mtime="@$(source_date)" | tar -x -C "$1"
}

# What both builders begin with: gets tools and binaries, and collects the licences of what is in them. KIND is deb or rpm. Reads of the environment
#
#   ARCH                   amd64 (x86_64) or arm64 (aarch64); this machine's
#   VERSION                Cargo.toml's. Another one changes the package's only: jouled --version stays
#   BUILT, BUILT_LIBVIRT   folders of binaries that are there; without BUILT they are built (packaging/build.sh). Without jouled-libvirt
#                          its package is not made
#   OUT                    target/KIND
#
# and sets them, with target, arch, version, out, licences (a folder), and libvirt where that package is made.
# shellcheck disable=SC2034
begin_package() {
    target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
    arch=$(debian_arch "${ARCH:-}")
    version=${VERSION:-$(cargo_version)}
    out=$(realpath -m "${OUT:-$target/$1}")
    licences=$target/licences/$arch
    SOURCE_DATE_EPOCH=$(source_date)
    export SOURCE_DATE_EPOCH
    packaging/dev/deps.sh package
    [ -n "${BUILT:-}" ] || eval "$(packaging/build.sh "$arch")"
    BUILT=$(realpath "$BUILT") BUILT_LIBVIRT=$(realpath -m "${BUILT_LIBVIRT:-$target/libvirt/release}")
    libvirt=''
    if [ -x "$BUILT_LIBVIRT/jouled-libvirt" ] && [ "$arch" = "$(debian_arch)" ]; then
        libvirt=yes
        packaging/licences.py --target "$(rust_triple "$arch")" --write "$licences"
    else
        echo "$1: without jouled-libvirt, which is not built"
        packaging/licences.py --target "$(rust_triple "$arch")" --write "$licences" --program jouled
    fi
}
