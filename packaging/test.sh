#!/bin/bash
# Tests of the packages: one version in all files, licences, contents and dependencies, lintian and rpmlint, reproducible builds, debug
# information, installation, upgrade and removal of RPMs, completions in their shells. `make test-system` installs the Debian packages in a
# booted system.
#
#   test.sh [CHECK]...    the named checks; default: all but the last
#
# The packages contain the binaries in target/release, or in BUILT and BUILT_LIBVIRT. The last check in this file,
# binaries_are_the_same_from_another_checkout, makes two builds of the binaries, so only a release runs it.
# UPDATE_GOLDEN=1 rewrites packaging/contents from the packages, and checks nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
arch=$(debian_arch)
version=$(cargo_version)
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(source_date)
dir=$(mktemp -d)
chmod 755 "$dir"
trap 'rm -rf "$dir"' EXIT
passed=0

checks=(
    versions_agree
    licences_are_checked
    packages_are_built
    contents_are_as_in_the_golden_files
    packages_are_small_and_run_on_old_systems
    linters_have_nothing_to_say
    a_second_build_elsewhere_is_the_same
    debug_information_has_its_own_packages
    rpms_can_be_installed_upgraded_and_erased
    shells_complete
)

main() {
    # This check builds its own binaries.
    if [ "$*" = binaries_are_the_same_from_another_checkout ]; then
        "$@"
        return
    fi
    export BUILT=${BUILT:-$target/release} BUILT_LIBVIRT=${BUILT_LIBVIRT:-$target/libvirt/release} BUILT_CONTAINERS=${BUILT_CONTAINERS:-$target/containers/release}
    [ -x "$BUILT/jouled" ] && [ -x "$BUILT/joulectl" ] || fail "$BUILT has no binaries: run make build"
    [ -x "$BUILT_LIBVIRT/jouled-libvirt" ] || echo "skip: jouled-libvirt is not built (make libvirt): its packages are not made"
    [ -x "$BUILT_CONTAINERS/jouled-containers" ] || echo "skip: jouled-containers is not built (make containers): its packages are not made"
    local check
    # The source package contains packaging/contents, so packages built before are out of date afterwards.
    [ -z "${UPDATE_GOLDEN:-}" ] || set -- packages_are_built contents_are_as_in_the_golden_files
    [ "$#" != 0 ] || set -- "${checks[@]}"
    for check; do "$check"; done
    echo "test-packages: $passed passed, 0 failed"
}

fail() {
    echo "test-packages: $*" >&2
    exit 1
}

ok() {
    echo "ok: $*"
    passed=$((passed + 1))
}

same() {
    [ "$2" = "$3" ] || fail "$1: it is \"$2\", and should be \"$3\""
}

versions_agree() {
    [ -n "$version" ] || fail "Cargo.toml has no version"
    same "daemon/libvirt/Cargo.toml" "$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' daemon/libvirt/Cargo.toml)" "$version"
    same "daemon/containers/Cargo.toml" "$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' daemon/containers/Cargo.toml)" "$version"
    same "packaging/deb/changelog" "$(dpkg-parsechangelog -l packaging/deb/changelog -S Version)" "$version"
    same "packaging/rpm/jouled.spec" "$(sed -n 's/^Version: *//p' packaging/rpm/jouled.spec)" "$version"
    same "packaging/rpm/jouled.spec, its changelog" "$(sed -n '/^%changelog/,$s/^\* .* - //p' packaging/rpm/jouled.spec | head -n 1)" "$version-1"
    same "jouled --version" "$("$BUILT/jouled" --version)" "jouled $version"
    ok "Cargo.toml, changelog, spec and the program name one version"
}

packages_are_built() {
    OUT=$target/deb packaging/deb/build.sh
    OUT=$target/rpm packaging/rpm/build.sh
}

licences_are_checked() {
    packaging/licences.py --self-test
    sed '/"MIT",/d' deny.toml >"$dir/strict.toml"
    if packaging/licences.py --policy "$dir/strict.toml" >"$dir/strict" 2>&1; then fail "licences.py allows what deny.toml does not"; fi
    grep -q "axum .*: 'MIT' is not among those that deny.toml allows" "$dir/strict" || fail "licences.py does not say why: $(head -n 1 "$dir/strict")"
    local program
    for program in jouled jouled-libvirt jouled-containers; do
        same "packaging/rpm/jouled.spec, licences of $program" "$(spec_licence "$program")" "$(packaging/licences.py --spdx --program "$program")"
    done
    ok "a licence that is not allowed is refused; the spec names all that there are"
}

spec_licence() {
    sed -n 's/^License: *//p' packaging/rpm/jouled.spec | sed -n "$(case $1 in jouled) echo 1 ;; jouled-libvirt) echo 2 ;; *) echo 3 ;; esac)p"
}

debs() {
    find "$target/deb" -name "jouled*_${version}_$arch.deb" ! -name '*-dbgsym_*' | LC_ALL=C sort
}

rpms() {
    find "$target/rpm" -name "jouled*-$version-1.$(rpm_arch "$arch").rpm" ! -name '*-debug*' | LC_ALL=C sort
}

# Modes, owners and paths of all files, and dependencies, of the packages that were built.
contents_are_as_in_the_golden_files() {
    local file name
    for file in $(debs); do
        name=deb-$(dpkg-deb -f "$file" Package)
        {
            dpkg-deb -f "$file" Depends Recommends Suggests Enhances | sed 's/ (>= [^)]*)//g'
            # A page is compressed if it is long; the list does not show that.
            dpkg-deb -c "$file" | awk '{print $1, $2, $6 " " $7 " " $8}' | sed 's/ *$//; /share.doc/s/\.gz$//'
        } >"$dir/$name"
        golden "$name"
    done
    for file in $(rpms); do
        name=rpm-$(rpm -qp --qf '%{NAME}' "$file")
        {
            rpm -qp --qf '[requires %{REQUIRES}\n]' "$file" | grep -v ' rpmlib(' | sed 's/(GLIBC_[^)]*)//; s/(GCC_[^)]*)//' | LC_ALL=C sort -u
            rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\n]' "$file" |
                sed 's/ *$//' | grep -v '/\.build-id'
        } >"$dir/$name"
        golden "$name"
    done
    ok "the packages hold and ask for what packaging/contents says"
}

golden() {
    [ -z "${UPDATE_GOLDEN:-}" ] || { mkdir -p packaging/contents && cp "$dir/$1" "packaging/contents/$1"; }
    diff -u "packaging/contents/$1" "$dir/$1" || fail "packaging/contents/$1; UPDATE_GOLDEN=1 accepts the change"
}

# Debian 12 has glibc 2.36, EL 9 has 2.34.
packages_are_small_and_run_on_old_systems() {
    local file newest
    for file in $(debs) $(rpms); do
        echo "size: $(basename "$file"): $(($(stat -c %s "$file") / 1000)) kB"
        [ "$(stat -c %s "$file")" -le 10000000 ] || fail "$file is above 10 MB"
    done
    for file in $(debs); do
        echo "size: $(dpkg-deb -f "$file" Package) installed: $(dpkg-deb -f "$file" Installed-Size) KiB; Depends: $(dpkg-deb -f "$file" Depends)"
    done
    for file in "$BUILT"/{jouled,joulectl} "$BUILT_LIBVIRT/jouled-libvirt" "$BUILT_CONTAINERS/jouled-containers"; do
        [ -x "$file" ] || continue
        newest=$(objdump -T "$file" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
        [ "$(printf 'GLIBC_2.34\n%s\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.34 ] || fail "$file needs $newest: EL 9 has 2.34"
    done
    ok "packages are at most 10 MB, and EL 9 is new enough for the binaries"
}

linters_have_nothing_to_say() {
    local as_root=()
    [ "$(id -u)" != 0 ] || as_root=(--allow-root)
    # A program of 13 MB always contains bytes that look like a misspelled word.
    lintian "${as_root[@]}" --suppress-tags spelling-error-in-binary --display-info --pedantic --display-experimental "$target/deb/jouled_${version}_$arch.changes" >"$dir/lintian" 2>&1 || true
    [ ! -s "$dir/lintian" ] || fail "lintian: $(cat "$dir/lintian")"
    rpmlint -c packaging/rpm/rpmlint.toml "$target"/rpm/*.rpm packaging/rpm/jouled.spec >"$dir/rpmlint" 2>&1 || true
    grep -q ' 0 errors, 0 warnings' "$dir/rpmlint" || fail "rpmlint: $(cat "$dir/rpmlint")"
    ok "lintian (pedantic) and rpmlint have nothing to say"
}

# In another folder, without git, with another time zone and locale.
a_second_build_elsewhere_is_the_same() {
    local elsewhere=$dir/another/place file
    mkdir -p "$elsewhere"
    copy_sources "$elsewhere"
    (
        cd "$elsewhere"
        export CARGO_TARGET_DIR=$dir/another/target TZ=Asia/Tokyo LC_ALL=C.UTF-8
        umask 027
        OUT=$dir/second packaging/deb/build.sh && OUT=$dir/second packaging/rpm/build.sh
    ) >"$dir/log" 2>&1 || fail "elsewhere: $(tail -n 5 "$dir/log")"
    for file in $(debs) $(rpms) "$target"/rpm/*.src.rpm; do
        cmp "$file" "$dir/second/$(basename "$file")" || fail "two builds of $(basename "$file") differ"
    done
    ok "built in another folder, the packages are equal byte by byte"
}

# Small programs in place of the real ones: only their debug information matters here.
stand_ins() {
    mkdir -p "$dir/built"
    echo 'fn main() { println!("stand-in"); }' >"$dir/stand-in.rs"
    rustc -C debuginfo=line-tables-only -C strip=none -o "$dir/built/jouled" "$dir/stand-in.rs"
    cp "$dir/built/jouled" "$dir/built/joulectl"
}

debug_information_has_its_own_packages() {
    stand_ins
    local id
    id=$(readelf -n "$dir/built/jouled" | sed -n 's/.*Build ID: //p')
    BUILT=$dir/built BUILT_LIBVIRT=$dir/none OUT=$dir/debug packaging/deb/build.sh >"$dir/log" 2>&1 || fail "$(tail -n 5 "$dir/log")"
    BUILT=$dir/built BUILT_LIBVIRT=$dir/none OUT=$dir/debug packaging/rpm/build.sh >"$dir/log" 2>&1 || fail "$(tail -n 5 "$dir/log")"
    dpkg-deb -c "$dir"/debug/jouled-dbgsym_*.deb >"$dir/files"
    grep -q "/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug" "$dir/files" || fail "the dbgsym package lacks $id"
    rpm -qpl "$dir"/debug/jouled-debuginfo-*.rpm >"$dir/files"
    grep -q '^/usr/lib/debug/usr/bin/jouled-.*\.debug$' "$dir/files" || fail "the debuginfo package lacks jouled"
    dpkg-deb --fsys-tarfile "$dir"/debug/jouled_*.deb | tar -xO ./usr/bin/jouled >"$dir/stripped"
    if readelf -SW "$dir/stripped" | grep '\.debug_line\|\.symtab'; then fail "the program of the package is not stripped"; fi
    ok "debug information is in a dbgsym and a debuginfo package, and not in the program's"
}

# Installation, upgrade and removal of an RPM with rpm's own database and scripts. The root has only a shell, and tools that log how they
# are called.
rpms_can_be_installed_upgraded_and_erased() {
    local root=$dir/root shell tool newer=$dir/newer
    stand_ins
    shell=$(command -v busybox || echo "$target/tools/busybox")
    if [ "$(id -u)" != 0 ]; then echo "skip: RPMs are not installed: rpm --root needs root"; return; fi
    if [ ! -x "$shell" ] || ldd "$shell" >/dev/null 2>&1; then echo "skip: RPMs are not installed: there is no static busybox for their scripts"; return; fi
    mkdir -p "$root"/{bin,dev,usr/bin,usr/sbin,usr/lib/systemd,var/lib,run/jouled,tmp}
    cp "$shell" "$root/bin/busybox"
    : >"$root/dev/null"
    for tool in sh rm; do ln -s busybox "$root/bin/$tool"; done
    for tool in usr/bin/getent usr/sbin/groupadd usr/sbin/useradd usr/lib/systemd/systemd-update-helper; do
        # getent finds no user.
        printf '#!/bin/sh\necho "%s $*" >>/log\n[ %s != getent ]\n' "$(basename "$tool")" "$(basename "$tool")" >"$root/$tool"
        chmod 755 "$root/$tool"
    done
    in_root() { rpm --root "$root" --dbpath /var/lib/rpm "$@"; }

    in_root -i --nodeps "$target/rpm/jouled-$version-1.$(rpm_arch "$arch").rpm"
    diff -u - "$root/log" <<'LOG' || fail "scripts at installation"
getent group jouled
groupadd -r jouled
getent passwd jouled
useradd -r -g jouled -d / -s /sbin/nologin -c Energy daemon jouled
getent group jouled-models
groupadd -r jouled-models
getent passwd jouled-models
useradd -r -g jouled-models -d / -s /sbin/nologin -c Fetches power models for jouled jouled-models
systemd-update-helper install-system-units jouled.service jouled.socket jouled-models.service jouled-models.timer
LOG
    in_root -V --nodeps jouled | grep -v ' /var/lib/jouled\(-models\|-fetch\)\?$' && fail "what was installed is not what is in the package"
    [ -x "$root/usr/bin/jouled" ] && [ -f "$root/etc/jouled/jouled.toml" ] || fail "files are not there"

    # A newer version with another default configuration. The operator has changed the old configuration.
    mkdir -p "$newer/tree"
    copy_sources "$newer/tree"
    echo '# A newer default.' >>"$newer/tree/etc/jouled.toml"
    (cd "$newer/tree" && VERSION=99.0~test BUILT=$dir/built BUILT_LIBVIRT=$dir/none OUT=$newer CARGO_TARGET_DIR=$newer/target packaging/rpm/build.sh) \
        >"$dir/log" 2>&1 || fail "$(tail -n 5 "$dir/log")"
    echo '# The operator was here.' >>"$root/etc/jouled/jouled.toml"
    : >"$root/log"
    in_root -U --nodeps "$newer"/jouled-99.0~test-1.*.rpm 2>"$dir/log"
    same "scripts at an upgrade" "$(grep -v '^getent\|^groupadd\|^useradd' "$root/log")" "systemd-update-helper mark-restart-system-units jouled.service"
    grep -q 'operator was here' "$root/etc/jouled/jouled.toml" || fail "an upgrade lost the operator's configuration"
    grep -q 'A newer default' "$root/etc/jouled/jouled.toml.rpmnew" || fail "an upgrade hides the new default configuration"

    : >"$root/log"
    in_root -e jouled 2>"$dir/log"
    same "scripts at removal" "$(cat "$root/log")" "systemd-update-helper remove-system-units jouled-models.timer jouled-models.service jouled.socket jouled.service"
    same "what is left" "$(cd "$root" && find . -path './*jouled*' | LC_ALL=C sort | tr '\n' ' ')" \
        "./etc/jouled ./etc/jouled/jouled.toml.rpmnew ./etc/jouled/jouled.toml.rpmsave "
    ok "an RPM is installed, upgraded and erased: its scripts do what they should, configuration is kept, nothing else is left"
}

shells_complete() {
    local words
    # shellcheck disable=SC2016
    words=$(bash --norc -c '. packaging/completions/joulectl.bash; COMP_WORDS=(joulectl list ""); COMP_CWORD=2; _joulectl joulectl "" list; echo "${COMPREPLY[*]}"')
    [[ " $words " == *" container "* ]] || fail "bash completes joulectl list with: $words"
    if command -v fish >/dev/null; then
        words=$(fish --no-config -c 'source packaging/completions/jouled.fish; complete -C "jouled --log-level "' | tr '\n' ' ')
        same "fish completes jouled --log-level" "$words" "debug error info trace warn "
    else
        echo "skip: no fish"
    fi
    if command -v zsh >/dev/null; then
        words=$(HOME=$dir zsh -fc 'fpath=($PWD/packaging/completions $fpath); autoload -Uz compinit; compinit -u -d $HOME/dump; echo $_comps[jouled] $_comps[joulectl]')
        same "zsh takes its completions from" "$words" "_jouled _joulectl"
    else
        echo "skip: no zsh"
    fi
    ok "bash, fish and zsh take the completions"
}

# Builds the binaries twice, here and in a copy in another folder. This takes long.
binaries_are_the_same_from_another_checkout() {
    local elsewhere=$dir/another/place binary
    eval "$(packaging/build.sh)"
    mkdir -p "$elsewhere"
    copy_sources "$elsewhere"
    (cd "$elsewhere" && CARGO_TARGET_DIR=$dir/another/target packaging/build.sh) >"$dir/second"
    for binary in "$BUILT"/{jouled,joulectl} "$BUILT_CONTAINERS/jouled-containers" ${BUILT_LIBVIRT:+"$BUILT_LIBVIRT/jouled-libvirt"}; do
        cmp "$binary" "$(sed -n "s|^BUILT[A-Z_]*=||p" "$dir/second" | while read -r at; do find "$at" -maxdepth 1 -name "$(basename "$binary")"; done)"
        if grep -qa -e "$PWD" -e "$HOME/.cargo" "$binary"; then fail "$binary names a folder of this machine"; fi
    done
    ok "another checkout builds the same binaries, and they name no folder of this machine"
}

main "$@"
