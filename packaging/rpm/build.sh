#!/bin/bash
# Builds the RPMs for Fedora and EL 9 and 10 from the spec in this folder, on any distribution with rpmbuild.
#
# packaging/common.sh describes the environment variables.
set -euo pipefail
cd "$(dirname "$0")/../.."
. packaging/common.sh
begin_package rpm
parts=(--without libvirt)
[ -z "$libvirt" ] || parts=(--with libvirt)
if [ -n "$containers" ]; then parts+=(--with containers); else parts+=(--without containers); fi

work=$target/rpm-build/$arch
rm -rf "$work"
mkdir -p "$work"/{SOURCES,SPECS,sources/"jouled-$version"} "$out"
copy_sources "$work/sources/jouled-$version"
sed "s/^\(Version: *\).*/\1$version/" packaging/rpm/jouled.spec >"$work/SPECS/jouled.spec"
tar -C "$work/sources" --sort=name --mode=u=rwX,go=rX --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "jouled-$version" | gzip -n9 \
    >"$work/SOURCES/jouled-$version.tar.gz"
cp systemd/jouled{,-libvirt,-containers}.sysusers.conf "$work/SOURCES/"
chmod 644 "$work"/{SOURCES,SPECS}/*

# All files get the time of the last commit, also the binaries.
mkdir "$work/built"
cp "$BUILT"/{jouled,joulectl} "$work/built/"
[ -z "$libvirt" ] || cp "$BUILT_LIBVIRT/jouled-libvirt" "$work/built/"
[ -z "$containers" ] || cp "$BUILT_CONTAINERS/jouled-containers" "$work/built/"
touch -d "@$SOURCE_DATE_EPOCH" "$work"/{built,SOURCES,SPECS}/*

# If rpm lacks the macros of Fedora and EL, it reads ours, as the user's macros.
home=$HOME
if [ -z "$(rpm --eval '%{?systemd_post:1}')" ]; then
    home=$work
    cp packaging/rpm/foreign.macros "$work/.rpmmacros"
    cp packaging/rpm/sysusers.sh "$work/"
fi
# Binaries without debug information, such as those of `make build`, give no debuginfo package.
debug=()
# (Not grep -q: it exits at the first match, readelf then fails to write, and with pipefail the pipe sometimes fails.)
if readelf -SW "$BUILT/jouled" | grep ' \.debug_line ' >/dev/null; then debug=(--define '_enable_debug_packages 1'); else debug=(--define 'debug_package %{nil}'); fi
options=(--nodeps --target "$(rpm_arch "$arch")-linux" "${parts[@]}" "${debug[@]}")
# A source package contains its spec with all macros expanded. With absolute paths it would contain folders of this machine, and the other
# packages contain its digest.
(
    cd "$work"
    HOME=$home rpmbuild -bs "${options[@]}" --define "_topdir ." SPECS/jouled.spec
    HOME=$home rpmbuild -bb "${options[@]}" --define "_topdir $work" \
        --define "built $work/built" --define "built_libvirt $work/built" --define "built_containers $work/built" --define "licences $licences" SPECS/jouled.spec
) >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
grep -iE '^(warning|error)' "$work/log" || true
rm -f "$out"/jouled*."$(rpm_arch "$arch")".rpm "$out"/jouled*.src.rpm
mv "$work"/RPMS/*/*.rpm "$work"/SRPMS/*.rpm "$out/"
(cd "$out" && ls -l jouled*.rpm)
