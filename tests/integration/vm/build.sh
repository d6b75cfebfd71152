#!/bin/bash
# Builds what the virtual machine boots from: a Debian root as an ext4 image, its kernel, a small initrd, fakerapl.ko, the ACPI table of
# its power meter, and the initramfs of the virtual machines in that machine.
# It is not a test, and it builds nothing that is there already. Needs root, x86_64 and a Debian mirror.
#
#   VM_DIR=DIR      where everything is kept (default: target/vm of this repository)
#   VM_SUITE=NAME   Debian release (default: trixie)
#   VM_MIRROR=URL   Debian mirror (default: the one that this machine's apt uses, where it is a Debian)
# Ends with 77 where this machine or its network cannot do it, and with another status where something is wrong.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
vm_dir=${VM_DIR:-$here/../../../target/vm}
suite=${VM_SUITE:-trixie}
mirror=${VM_MIRROR:-}

cannot=77
failure=1
current=
exec 3>&2
trap on_exit EXIT

packages=(
    systemd systemd-sysv dbus udev kmod procps python3 busybox-static
    linux-image-amd64 linux-headers-amd64 make gcc libc6-dev acpica-tools
    # run.sh runs it from here as well, so that the emulator is the same wherever this is built.
    qemu-system-x86
    libvirt-daemon-system libvirt-clients systemd-container
    prometheus-node-exporter
)

# Units of no use here; each costs a second or more of an emulated boot. systemd-udev-trigger would load drivers for half a minute.
masked=(
    systemd-udev-trigger.service
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer logrotate.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
    systemd-timesyncd.service systemd-random-seed.service systemd-hwdb-update.service ldconfig.service systemd-pstore.service
    systemd-journal-catalog-update.service systemd-update-utmp.service systemd-binfmt.service systemd-firstboot.service
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount sys-kernel-debug.mount modprobe@drm.service
    modprobe@efi_pstore.service getty@tty1.service
    libvirt-guests.service prometheus-node-exporter.service
)


main() {
    mkdir -p "$vm_dir"
    vm_dir=$(realpath "$vm_dir")
    exec 9>"$vm_dir/lock"
    flock 9
    install_tools
    [ -n "$mirror" ] || mirror=$(own_mirror)
    if [ -z "$mirror" ]; then
        echo "no Debian mirror is known here: name one with VM_MIRROR=URL" >&2
        exit "$cannot"
    fi

    local key
    key=$(wanted_key) || exit "$cannot"
    if [ "$(cat "$vm_dir/key" 2>/dev/null)" != "$key" ]; then
        rm -rf "$vm_dir/key" "$vm_dir/root"
        outside_step "root file system" build_root
        step "initrd" build_initrd
        step "disk image" build_image
        rm -f "$vm_dir/fakerapl.ko" "$vm_dir/pwrmeter.aml" "$vm_dir/nested.cpio"
        echo "$key" >"$vm_dir/key"
    fi
    if [ ! "$vm_dir/fakerapl.ko" -nt "$here/fakerapl/fakerapl.c" ]; then
        step "fakerapl.ko" build_module
    fi
    if [ ! "$vm_dir/pwrmeter.aml" -nt "$here/acpi/pwrmeter.asl" ]; then
        step "pwrmeter.aml" build_acpi
    fi
    if [ ! "$vm_dir/nested.cpio" -nt "$here/nested/vsk.c" ]; then
        step "nested initramfs" build_nested
    fi
}

# The mirror of this machine's own packages; nothing where it is not a Debian.
own_mirror() {
    grep -qx 'ID=debian' /etc/os-release || return 0
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | awk '!/security/ && !found { sub("/+$", ""); print; found = 1 }'
}

# Runs a step outside of a condition, where bash would go on after an error; on_exit reports the step that failed.
step() {
    local start=$SECONDS
    current=$1
    shift
    "$@" >"$vm_dir/build.log" 2>&1
    echo "# built $current in $((SECONDS - start)) s"
    current=
}

# A step that fails where this machine or its network lacks something.
outside_step() {
    failure=$cannot
    step "$@"
    failure=1
}

on_exit() {
    [ -n "$current" ] || return 0
    tail -n 20 "$vm_dir/build.log" | sed 's/^/# /' >&3
    echo "build.sh: $current failed" >&3
    exit "$failure"
}

install_tools() {
    local missing=()
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v cpio >/dev/null || missing+=(cpio)
    command -v xz >/dev/null || missing+=(xz-utils)
    command -v mke2fs >/dev/null || missing+=(e2fsprogs)
    [ ${#missing[@]} -gt 0 ] || return 0
    outside_step "package lists" apt-get update
    outside_step "tools (${missing[*]})" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}"
}

# The inputs of the root file system: this script, and the release on the mirror. A stable release changes its packages only together with
# its version, so that the signed release file stands for the versions of all packages.
wanted_key() {
    local release
    if release=$(release_now) && [ -n "$release" ]; then
        { echo "$release"; cat "$here/build.sh" "$here/guest/vmtest.service"; } | sha256sum | cut -d' ' -f1
    elif [ -s "$vm_dir/key" ]; then
        echo "# the mirror does not answer: using what was built before" >&2
        cat "$vm_dir/key"
    else
        echo "# the mirror does not answer" >&2
        return 1
    fi
}

# apt with a separate state folder, which gets the release file and no index.
release_now() {
    local apt=$vm_dir/apt
    mkdir -p "$apt/lists"
    echo "deb $mirror $suite main" >"$apt/sources.list"
    apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$apt/lists" \
        -o Acquire::IndexTargets::deb::Packages::DefaultEnabled=false \
        -o Acquire::IndexTargets::deb::Translations::DefaultEnabled=false \
        update >/dev/null 2>&1 || return 1
    grep -hE '^(Suite|Version|Date):' "$apt"/lists/*InRelease 2>/dev/null
}

build_root() {
    local root=$vm_dir/root unit
    # INITRD=No: Debian's own initrd, which would take longer to build and to boot, is not made.
    INITRD=No mmdebstrap --mode=root --variant=minbase --format=directory \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$root" "deb $mirror $suite main"
    for unit in "${masked[@]}"; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    # The cases that want libvirt start it.
    rm -f "$root"/etc/systemd/system/*.wants/{libvirtd,virtlogd,virtlockd}*
    install -m 644 "$here/guest/vmtest.service" "$root/etc/systemd/system/"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/payload"
    ln -sf ../vmtest.service "$root/etc/systemd/system/multi-user.target.wants/"
    ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    echo vmtest >"$root/etc/hostname"
    echo '127.0.0.1 localhost vmtest' >"$root/etc/hosts"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    : >"$root/etc/fstab"
    chroot "$root" dpkg-query -W >"$vm_dir/versions"
    cp "$root"/boot/vmlinuz-* "$vm_dir/vmlinuz"
}

kernel_version() {
    basename "$vm_dir"/root/lib/modules/*
}

# Copies modules and what they need into DIR/lib, and their paths there, in order, into DIR/modules.
take_modules() {
    local root=$vm_dir/root dir=$1 module
    shift
    for module; do
        chroot "$root" modprobe -S "$(kernel_version)" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$dir/paths"
    while read -r module; do
        xz -dc "$root$module" >"$dir/lib/$(basename "$module" .xz)"
        echo "/lib/$(basename "$module" .xz)" >>"$dir/modules"
    done <"$dir/paths"
}

# busybox and the modules that it takes to mount ext4 from a virtio disk.
build_initrd() {
    local root=$vm_dir/root dir=$vm_dir/initrd tool
    rm -rf "$dir"
    mkdir -p "$dir"/{bin,lib,proc,dev,new}
    cp "$root/usr/bin/busybox" "$dir/bin/"
    for tool in sh mount umount insmod switch_root; do
        ln -s busybox "$dir/bin/$tool"
    done
    take_modules "$dir" virtio_pci virtio_blk crc32c_generic ext4
    cat >"$dir/init" <<'INIT'
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
while read -r module; do insmod "$module"; done < /modules
mount -t ext4 -o noatime /dev/vda /new
umount /proc
mount --move /dev /new/dev
exec switch_root /new /sbin/init
INIT
    chmod +x "$dir/init"
    (cd "$dir" && find . | cpio -o -H newc --quiet) >"$vm_dir/initrd.cpio"
}

build_image() {
    rm -f "$vm_dir/root.ext4"
    truncate -s 4G "$vm_dir/root.ext4"
    mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$vm_dir/root" "$vm_dir/root.ext4"
}

# In the root itself: it has the compiler and the headers that its kernel was made with.
build_module() {
    local src=$vm_dir/root/usr/src/fakerapl
    rm -rf "$src"
    cp -r "$here/fakerapl" "$src"
    chroot "$vm_dir/root" make -s -C "/lib/modules/$(kernel_version)/build" M=/usr/src/fakerapl modules
    cp "$src/fakerapl.ko" "$vm_dir/fakerapl.ko"
}

build_acpi() {
    cp "$here/acpi/pwrmeter.asl" "$vm_dir/root/usr/src/"
    chroot "$vm_dir/root" iasl -we -p /usr/src/pwrmeter /usr/src/pwrmeter.asl
    cp "$vm_dir/root/usr/src/pwrmeter.aml" "$vm_dir/pwrmeter.aml"
}

# The initramfs of a VM in the machine without jouled and /init, which run.sh adds: busybox, the drivers of its devices, the libraries of a
# Rust program, Debian's node exporter, and a program that talks over vsock.
build_nested() {
    local root=$vm_dir/root dir=$vm_dir/nested tool file
    rm -rf "$dir"
    mkdir -p "$dir"/{bin,lib,lib64,proc,sys,dev,run,tmp,etc,var}
    cp "$root/usr/bin/busybox" "$root/usr/bin/prometheus-node-exporter" "$dir/bin/"
    for tool in $(chroot "$root" busybox --list); do
        [ "$tool" = busybox ] || ln -s busybox "$dir/bin/$tool"
    done
    take_modules "$dir" virtio_pci virtio_console vmw_vsock_virtio_transport acpi_power_meter
    cp "$here/nested/vsk.c" "$root/usr/src/"
    chroot "$root" gcc -std=c17 -O2 -Wall -Wextra -Werror -static -o /usr/src/vsk /usr/src/vsk.c
    cp "$root/usr/src/vsk" "$dir/bin/"
    cp "$dir/bin/vsk" "$vm_dir/vsk"
    for file in libc.so.6 libm.so.6 libgcc_s.so.1 libresolv.so.2; do
        cp -L "$root/usr/lib/x86_64-linux-gnu/$file" "$dir/lib/"
    done
    cp -L "$root/lib64/ld-linux-x86-64.so.2" "$dir/lib64/"
    (cd "$dir" && find . | cpio -o -H newc --quiet) >"$vm_dir/nested.cpio"
}

main "$@"
