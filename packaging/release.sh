#!/bin/bash
# Builds the files of a release into target/dist: Debian packages, RPMs, the source archive, SBOMs and
# their checksums. It builds only from a clean, tagged commit whose version is the same everywhere.
# CONTRIBUTING.md, "Release", has the whole checklist.
#
#   release.sh            checks, then builds
#   release.sh --check    only checks
#
#   ARCHES="amd64 arm64"   the architectures to build for; default: this machine's
#   OUT=DIR                another folder than target/dist, new or made by this script
#
# It does not sign, upload or tag anything.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh
version=$(cargo_version)
tag=v$version

main() {
    [ -n "$version" ] || refuse "Cargo.toml has no version in [workspace.package]"
    git rev-parse --is-inside-work-tree >/dev/null 2>&1 || refuse "this is not a git checkout: a release is built from a commit"
    the_tree_is_clean
    the_versions_agree
    the_changelog_has_an_entry
    the_tag_is_on_this_commit
    echo "release: $tag is ready: $(git rev-parse --short HEAD), clean, one version, in CHANGELOG.md"
    [ "${1:-}" = --check ] || build
}

refuse() {
    echo "release: $*" >&2
    exit 1
}

the_tree_is_clean() {
    local changed
    changed=$(git status --porcelain)
    [ -z "$changed" ] || refuse "the tree has changes that are not committed:
$changed"
}

# What Cargo.toml says is compared with each other file that names the version.
the_versions_agree() {
    same daemon/libvirt/Cargo.toml "$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' daemon/libvirt/Cargo.toml)" "$version"
    same daemon/containers/Cargo.toml "$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' daemon/containers/Cargo.toml)" "$version"
    same packaging/deb/changelog "$(sed -n '1s/^jouled (\(.*\)) .*$/\1/p' packaging/deb/changelog)" "$version"
    same "packaging/rpm/jouled.spec (Version)" "$(sed -n 's/^Version: *//p' packaging/rpm/jouled.spec)" "$version"
    same "packaging/rpm/jouled.spec (%changelog)" "$(sed -n '/^%changelog/,$s/^\* .* - //p' packaging/rpm/jouled.spec | head -n 1)" "$version-1"
}

same() {
    [ "$2" = "$3" ] || refuse "$1 has version \"$2\", and Cargo.toml has $version: set it to $3"
}

# A heading `## [VERSION] - DATE`, with text below it.
the_changelog_has_an_entry() {
    local entry
    [ -e CHANGELOG.md ] || refuse "there is no CHANGELOG.md"
    grep -Eq "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
        refuse "CHANGELOG.md has no heading \"## [$version] - YYYY-MM-DD\": rename \"## [Unreleased]\""
    entry=$(awk -v heading="## [$version] " 'index($0, heading) == 1 { on = 1; next } /^## / { on = 0 } on && NF' CHANGELOG.md)
    [ -n "$entry" ] || refuse "the entry of CHANGELOG.md for $version is empty"
}

the_tag_is_on_this_commit() {
    local kind
    kind=$(git cat-file -t "refs/tags/$tag" 2>/dev/null) || refuse "there is no tag $tag: git tag -s $tag"
    [ "$kind" = tag ] || refuse "the tag $tag has no author, date and signature: delete it, then git tag -s $tag"
    [ "$(git rev-parse "$tag^{commit}")" = "$(git rev-parse HEAD)" ] ||
        refuse "the tag $tag is on $(git rev-parse --short "$tag^{commit}"), and this commit is $(git rev-parse --short HEAD)"
}

build() {
    local target out arch name
    target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
    out=$(realpath -m "${OUT:-$target/dist}")
    # Only a folder that this script made is emptied.
    if [ -e "$out" ] && [ ! -e "$out/SHA256SUMS" ] && [ -n "$(ls -A "$out")" ]; then
        refuse "$out has other files in it: empty it, or set OUT to another folder"
    fi
    rm -rf "$out"
    mkdir -p "$out"

    packaging/dev/deps.sh package
    for arch in ${ARCHES:-$(debian_arch)}; do build_for "$arch"; done
    git archive --format=tar --prefix="jouled-$version/" HEAD | gzip -n9 >"$out/jouled-$version.tar.gz"
    (cd "$out" && sha256sum -- * >"$target/SHA256SUMS" && mv "$target/SHA256SUMS" .)

    echo "release: the files are in $out:"
    (cd "$out" && ls -l)
    echo "release: next: gpg --armor --detach-sign $out/SHA256SUMS, then upload all files"
}

# The binaries once, then both kinds of packages from them. The package builders write the SBOMs.
build_for() {
    local BUILT='' BUILT_LIBVIRT=$target/none BUILT_CONTAINERS=$target/none
    eval "$(packaging/build.sh "$1")"
    export ARCH=$1 OUT=$out BUILT BUILT_LIBVIRT BUILT_CONTAINERS
    packaging/deb/build.sh
    packaging/rpm/build.sh
    for name in jouled jouled-libvirt jouled-containers; do
        [ ! -x "$BUILT/$name" ] && [ ! -x "$BUILT_LIBVIRT/$name" ] && [ ! -x "$BUILT_CONTAINERS/$name" ] ||
            cp "$target/licences/$1/$name/$name.cdx.json" "$out/$name-$version-$1.cdx.json"
    done
}

main "$@"
