#!/bin/bash
# RPMs for Fedora and EL 9 and 10, from the spec beside this, wherever there is an rpmbuild.
#
# The environment says what is not the default, as packaging/common.sh has it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. packaging/common.sh
begin_package rpm
parts=(--without libvirt)
[ -z "$libvirt" ] || parts=(--with libvirt)

work=$target/rpm-build/$arch
rm -rf "$work"
mkdir -p "$work"/{SOURCES,SPECS,sources/"jouled-$version"} "$out"
copy_sources "$work/sources/jouled-$version"
sed "s/^\(Version: *\).*/\1$version/" packaging/rpm/jouled.spec >"$work/SPECS/jouled.spec"
tar -C "$work/sources" --sort=name --mode=u=rwX,go=rX --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "jouled-$version" | gzip -n9 \
    >"$work/SOURCES/jouled-$version.tar.gz"
cp systemd/jouled{,-libvirt}.sysusers.conf "$work/SOURCES/"
chmod 644 "$work"/{SOURCES,SPECS}/*

# All is of the time of the last change, binaries too, when ever they were built.
mkdir "$work/built"
cp "$BUILT"/{jouled,joulectl} "$work/built/"
[ -z "$libvirt" ] || cp "$BUILT_LIBVIRT/jouled-libvirt" "$work/built/"
touch -d "@$SOURCE_DATE_EPOCH" "$work"/{built,SOURCES,SPECS}/*

# Where an rpm has no macros of a distribution with RPMs it takes ours, from what it takes for the user's.
home=$HOME
if [ -z "$(rpm --eval '%{?systemd_post:1}')" ]; then
    home=$work
    cp packaging/rpm/foreign.macros "$work/.rpmmacros"
    cp packaging/rpm/sysusers.sh "$work/"
fi
# Binaries without it, as those of `make build`, give no package of debug information.
debug=()
# (grep -q would leave at the first match, and readelf then fail to write: with pipefail, sometimes, as if there were none.)
if readelf -SW "$BUILT/jouled" | grep ' \.debug_line ' >/dev/null; then debug=(--define '_enable_debug_packages 1'); else debug=(--define 'debug_package %{nil}'); fi
options=(--nodeps --target "$(rpm_arch "$arch")-linux" "${parts[@]}" "${debug[@]}")
# A source package holds its spec with all macros expanded: folders of this machine would be in it, and its digest in that of the others.
(
    cd "$work"
    HOME=$home rpmbuild -bs "${options[@]}" --define "_topdir ." SPECS/jouled.spec
    HOME=$home rpmbuild -bb "${options[@]}" --define "_topdir $work" \
        --define "built $work/built" --define "built_libvirt $work/built" --define "licences $licences" SPECS/jouled.spec
) >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
grep -iE '^(warning|error)' "$work/log" || true
rm -f "$out"/jouled*."$(rpm_arch "$arch")".rpm "$out"/jouled*.src.rpm
mv "$work"/RPMS/*/*.rpm "$work"/SRPMS/*.rpm "$out/"
(cd "$out" && ls -l jouled*.rpm)
