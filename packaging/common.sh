# Functions of the package builders: names of architectures, the version, the time. Source it in the root of the tree.
# shellcheck shell=bash

# Debian's name for an architecture; default: that of this machine.
debian_arch() {
    case "${1:-$(uname -m)}" in
    amd64 | x86_64) echo amd64 ;;
    arm64 | aarch64) echo arm64 ;;
    *) echo "packaging: no packages are built for ${1:-$(uname -m)}: ARCH is amd64 or arm64" >&2 && return 1 ;;
    esac
}

# The names of Rust, GNU and rpm for the same architecture.
rust_triple() {
    case "$1" in amd64) echo x86_64-unknown-linux-gnu ;; arm64) echo aarch64-unknown-linux-gnu ;; esac
}

gnu_triple() {
    case "$1" in amd64) echo x86_64-linux-gnu ;; arm64) echo aarch64-linux-gnu ;; esac
}

rpm_arch() {
    case "$1" in amd64) echo x86_64 ;; arm64) echo aarch64 ;; esac
}

# The version of the workspace. Other files that name it are compared with this one.
cargo_version() {
    sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml
}

# The time of the last commit: every file in a package gets it.
source_date() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        echo "$SOURCE_DATE_EPOCH"
    elif git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git log -1 --format=%ct
    else
        stat -c %Y Cargo.lock
    fi
}

# The source files of this tree, separated by NUL: those that git tracks or would add; without git, all files outside of target/.
source_files() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard --deduplicate | while IFS= read -r -d '' file; do
            [ ! -e "$file" ] || printf '%s\0' "$file"
        done
    else
        find . -path ./target -prune -o -type f -printf '%P\0'
    fi | LC_ALL=C sort -z
}

# Copies the source files to a folder, with the time of the last commit.
copy_sources() {
    source_files | tar --null -T - -c --mtime="@$(source_date)" | tar -x -C "$1"
}

# The common first steps of both builders: gets tools and binaries, and collects the licences of the crates in them. Its argument is deb or
# rpm. It reads these environment variables:
#
#   ARCH                   amd64 (x86_64) or arm64 (aarch64); default: this machine's
#   VERSION                version of the packages; default: that of Cargo.toml. It does not change `jouled --version`
#   BUILT, BUILT_LIBVIRT, BUILT_CONTAINERS
#                          folders of existing binaries. Without BUILT they are built (packaging/build.sh). Without a jouled-libvirt or
#                          jouled-containers its package is not made
#   OUT                    the output folder; default: target/deb or target/rpm
#
# It sets them, and the variables target, arch, version, out, licences (a folder), and libvirt and
# containers (if these packages are made).
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
    BUILT_CONTAINERS=$(realpath -m "${BUILT_CONTAINERS:-$target/containers/release}")
    local program programs=(jouled)
    libvirt='' containers=''
    if [ -x "$BUILT_LIBVIRT/jouled-libvirt" ] && [ "$arch" = "$(debian_arch)" ]; then libvirt=yes programs+=(jouled-libvirt); else
        echo "$1: jouled-libvirt is not built, so its package is not made"
    fi
    if [ -x "$BUILT_CONTAINERS/jouled-containers" ]; then containers=yes programs+=(jouled-containers); else
        echo "$1: jouled-containers is not built, so its package is not made"
    fi
    for program in "${programs[@]}"; do
        packaging/licences.py --target "$(rust_triple "$arch")" --write "$licences" --program "$program"
    done
}
