#!/bin/bash
# Builds the root file system that run.sh boots: a small Debian with systemd, a bus and Python, and systemd-nspawn to boot it with. It is
# no test, and builds nothing that is there already. Needs root and a Debian mirror.
#
#   build.sh SUITE      bookworm or trixie
#   SYSTEM_DIR=DIR      where it is kept (default: target/system of this repository)
#   SYSTEM_MIRROR=URL   Debian mirror (default: the one that this machine's apt uses, where it is a Debian)
# Ends with 77 where this machine or its network cannot do it, and with another status where something is wrong.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=$1
dir=${SYSTEM_DIR:-$here/../../../target/system}/$suite
mirror=${SYSTEM_MIRROR:-}
cannot=77

packages=(systemd systemd-sysv systemd-container dbus udev procps python3)
# What some cases are about: they start it, and it is not started at boot.
packages+=(slurmctld slurmd slurm-client munge containerd runc busybox-static openssl)
packages+=(docker.io iptables podman crun uidmap slirp4netns fuse-overlayfs dbus-user-session lxc)
# In older releases it is part of docker.io.
[ "$suite" = bookworm ] || packages+=(docker-cli)
idle=(slurmctld slurmd munge containerd docker podman podman-auto-update podman-clean-transient podman-restart netavark-dhcp-proxy)
idle+=(lxc lxc-net lxc-monitord)

# Of no use here, or not possible in a container.
masked=(
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
    systemd-timesyncd.service systemd-random-seed.service systemd-hwdb-update.service ldconfig.service systemd-firstboot.service
    systemd-udev-trigger.service systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket
    systemd-update-utmp.service systemd-journal-catalog-update.service systemd-networkd-wait-online.service
    getty@tty1.service console-getty.service systemd-logind.service
)

main() {
    mkdir -p "$dir"
    dir=$(realpath "$dir")
    exec 9>"$dir/lock"
    flock 9
    command -v mmdebstrap >/dev/null || {
        apt-get -q update || true
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -qy install --no-install-recommends mmdebstrap
    } >"$dir/build.log" 2>&1 || stop "mmdebstrap cannot be installed: $(tail -n 1 "$dir/build.log")"
    [ -n "$mirror" ] || mirror=$(own_mirror)
    [ -n "$mirror" ] || stop "no Debian mirror is known here: name one with SYSTEM_MIRROR=URL"

    local key start=$SECONDS
    key=$(wanted_key) || stop "the mirror does not answer"
    [ "$(cat "$dir/key" 2>/dev/null)" != "$key" ] || return 0
    rm -rf "$dir/key" "$dir/root"
    if ! build_root >"$dir/build.log" 2>&1; then
        tail -n 20 "$dir/build.log" | sed 's/^/# /' >&2
        stop "$suite could not be built"
    fi
    echo "$key" >"$dir/key"
    echo "# built $suite in $((SECONDS - start)) s"
}

stop() {
    echo "build.sh: $1" >&2
    exit "$cannot"
}

# The mirror of this machine's own packages; nothing where it is not a Debian.
own_mirror() {
    grep -qx 'ID=debian' /etc/os-release || return 0
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | awk '!/security/ && !found { sub("/+$", ""); print; found = 1 }'
}

# The inputs of a build: this script, and the release on the mirror. Its signed file stands for the versions of all packages.
wanted_key() {
    local apt=$dir/apt release
    mkdir -p "$apt/lists"
    echo "deb $mirror $suite main" >"$apt/sources.list"
    if apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$apt/lists" \
        -o Acquire::IndexTargets::deb::Packages::DefaultEnabled=false -o Acquire::IndexTargets::deb::Translations::DefaultEnabled=false \
        update >/dev/null 2>&1 && release=$(grep -hE '^(Suite|Version|Date):' "$apt"/lists/*InRelease 2>/dev/null); then
        { echo "$release"; cat "$here/build.sh"; } | sha256sum | cut -d' ' -f1
    elif [ -s "$dir/key" ]; then
        echo "# the mirror does not answer: using what was built before" >&2
        cat "$dir/key"
    else
        return 1
    fi
}

build_root() {
    local root=$dir/root unit
    mmdebstrap --mode=root --variant=minbase --format=directory \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$root" "deb $mirror $suite main"
    for unit in "${masked[@]}"; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    for unit in "${idle[@]}"; do
        rm -f "$root"/etc/systemd/system/*.target.wants/"$unit".{service,socket,timer}
    done
    install -m 644 "$here/guest/systemtest.service" "$root/etc/systemd/system/"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/payload"
    ln -sf ../systemtest.service "$root/etc/systemd/system/multi-user.target.wants/"
    ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    echo jouled-system >"$root/etc/hostname"
    echo '127.0.0.1 localhost jouled-system' >"$root/etc/hosts"
    : >"$root/etc/fstab"
    # Each boot is a machine of its own.
    : >"$root/etc/machine-id"
}

main
