#!/bin/bash
# Debian packages: this folder as debian/, beside the sources, in a folder of its own; dpkg-buildpackage does the rest.
#
# The environment says what is not the default:
#   ARCH                   amd64 or arm64; this machine's
#   VERSION                Cargo.toml's. Another one changes the package's only: jouled --version stays
#   BUILT, BUILT_LIBVIRT   folders of binaries that are there; without BUILT they are built (packaging/build.sh). Without jouled-libvirt
#                          its package is not made
#   OUT                    target/deb
set -euo pipefail
cd "$(dirname "$0")/../.."
. packaging/common.sh
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
arch=$(debian_arch "${ARCH:-}")
version=${VERSION:-$(cargo_version)}
out=$(realpath -m "${OUT:-$target/deb}")
SOURCE_DATE_EPOCH=$(source_date)
export SOURCE_DATE_EPOCH

packaging/dev/deps.sh package
[ -n "${BUILT:-}" ] || eval "$(packaging/build.sh "$arch")"
BUILT=$(realpath "$BUILT") BUILT_LIBVIRT=$(realpath -m "${BUILT_LIBVIRT:-$target/libvirt/release}")
profiles='' program=()
[ -x "$BUILT_LIBVIRT/jouled-libvirt" ] && [ "$arch" = "$(debian_arch)" ] || {
    echo "deb: without jouled-libvirt, which is not built"
    profiles=pkg.jouled.nolibvirt program=(--program jouled)
}
packaging/licences.py --target "$(rust_triple "$arch")" --write "$target/licences/$arch" "${program[@]}"

work=$target/deb-build/$arch
rm -rf "$work"
mkdir -p "$work/jouled" "$out"
copy_sources "$work/jouled"
cp -r "$work/jouled/packaging/deb" "$work/jouled/debian"
rm "$work/jouled/debian/build.sh"
cd "$work/jouled"
if [ "$version" != "$(dpkg-parsechangelog -S Version)" ]; then
    {
        echo "jouled ($version) unstable; urgency=medium"
        printf '\n  * Built as version %s.\n\n' "$version"
        echo " -- $(dpkg-parsechangelog -S Maintainer)  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
        echo
        cat debian/changelog
    } >debian/changelog.new
    mv debian/changelog.new debian/changelog
fi

# Rust is not a package here: what building needs is not asked of dpkg.
JOULED_BUILT=$BUILT JOULED_BUILT_LIBVIRT=$BUILT_LIBVIRT JOULED_LICENCES=$target/licences/$arch \
    DEB_BUILD_PROFILES=$profiles DEB_BUILD_OPTIONS=nocheck \
    dpkg-buildpackage --build=binary --no-check-builddeps --unsigned-changes --unsigned-buildinfo \
    ${ARCH:+--host-arch "$arch"} >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
# dwz has something to do only where there is debug information.
grep -E '^(dpkg|dh_).*(warning|error)' "$work/log" | grep -v '^dh_dwz' || true
cd "$work"
rm -f "$out"/jouled*_"$arch".*
mv jouled*_"$version"_"$arch".* "$out/"
(cd "$out" && ls -l jouled*_"$version"_"$arch".deb)
