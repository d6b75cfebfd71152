#!/bin/bash
# Builds the Debian packages: copies the sources to a build folder, with this folder as debian/, and runs dpkg-buildpackage.
#
# packaging/common.sh describes the environment variables.
set -euo pipefail
cd "$(dirname "$0")/../.."
. packaging/common.sh
begin_package deb
profiles=''
[ -n "$libvirt" ] || profiles=pkg.jouled.nolibvirt
[ -n "$containers" ] || profiles="$profiles pkg.jouled.nocontainers"

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

# Rust is not installed as a package, so dpkg does not check build dependencies.
JOULED_BUILT=$BUILT JOULED_BUILT_LIBVIRT=$BUILT_LIBVIRT JOULED_BUILT_CONTAINERS=$BUILT_CONTAINERS JOULED_LICENCES=$licences \
    DEB_BUILD_PROFILES=$profiles DEB_BUILD_OPTIONS=nocheck \
    dpkg-buildpackage --build=binary --no-check-builddeps --unsigned-changes --unsigned-buildinfo \
    ${ARCH:+--host-arch "$arch"} >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
# dwz warns if there is no debug information.
grep -E '^(dpkg|dh_).*(warning|error)' "$work/log" | grep -v '^dh_dwz' || true
cd "$work"
rm -f "$out"/jouled*_"$arch".*
mv jouled*_"$version"_"$arch".* "$out/"
(cd "$out" && ls -l jouled*_"$version"_"$arch".deb)
