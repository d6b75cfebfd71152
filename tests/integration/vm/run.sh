#!/bin/bash
# Boots a Debian machine with systemd as PID 1 in software emulation, and runs cases in it: one line a case, then the counts.
# It builds no jouled: give its binaries, or run `make` first. README.md says more.
#
#   run.sh [WORD…]   only the cases whose name contains one of the words
#   run.sh --prepare            only build what the machine needs; needs no jouled, and boots nothing
#   VM_LAYERS="host vms"        "host": cases/, a host without VMs. "vms": cases_vms/, a host that runs VMs. One boot each (default: both)
#   JOULED=FILE JOULECTL=FILE   binaries under test (default: target/release)
#   JOULED_LIBVIRT=FILE         jouled-libvirt, which is optional (default: target/libvirt/release)
#   VM_DIR=DIR                  where the machine is kept (default: target/vm)
#   VM_TIMEOUT=SECONDS          limit for the machine's life, each boot (default: 900; with VMs 1500)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(realpath "$here/../../..")
export VM_DIR=${VM_DIR:-$top/target/vm}
jouled=${JOULED:-$top/target/release/jouled}
joulectl=${JOULECTL:-$top/target/release/joulectl}
jouled_libvirt=${JOULED_LIBVIRT:-$top/target/libvirt/release/jouled-libvirt}
layers=${VM_LAYERS:-host vms}
tools=${CARGO_TARGET_DIR:-$top/target}/tools
passed=0 failed=0 skipped=0
# build.sh ends with this where the machine lacks something, not where something is wrong.
cannot=77

main() {
    [ "$(uname -m)" = x86_64 ] || skip_all "needs x86_64, this is $(uname -m)"
    [ "$(id -u)" = 0 ] || skip_all "needs root, to build a Debian root file system"

    local status=0
    for layer in $layers; do
        case $layer in host | vms) ;; *) echo "run.sh: VM_LAYERS is of \"host\" and \"vms\", not \"$layer\"" >&2; exit 2 ;; esac
    done
    "$here/build.sh" || status=$?
    [ "$status" != "$cannot" ] || skip_all "the machine could not be built here, see above"
    [ "$status" = 0 ] || exit "$status"
    [[ " $layers " != *" vms "* ]] || get_vhost_device_vsock
    [ "${1:-}" != --prepare ] || return 0

    trap cleanup EXIT
    trap 'exit 130' INT TERM
    for layer in $layers; do
        run_layer "$@"
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

run_layer() {
    run_dir=$(mktemp -d "$VM_DIR/run.XXXXXX")
    : >"$run_dir/cases.log"
    limit=${VM_TIMEOUT:-900}
    [ "$layer" = host ] || limit=${VM_TIMEOUT:-1500}
    attempt "$@"
    # The emulator's SVM once overwrote a stack of the machine's kernel. A kernel that panics for another reason does so again.
    if [ "$layer" = vms ] && ! ended && grep -q 'Kernel panic' "$run_dir/console.log"; then
        grep -m 1 'Kernel panic' "$run_dir/console.log" | sed 's/^/# /'
        echo "# booting again, for the cases that are left"
        mv "$run_dir/console.log" "$run_dir/panic.log"
        attempt "$@"
    fi
    count_lines
    cleanup
}

attempt() {
    make_payload "$@"
    boot
    watch
    qemu=
    cat "$run_dir/boot.log" >>"$run_dir/cases.log"
}

# Whether the machine came to the end of its cases.
ended() {
    grep -q '^end$' "$run_dir/cases.log"
}

skip_all() {
    echo "skip vm: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

# A vsock device in user space, for the case of hybrid vsock: without it this case is skipped.
get_vhost_device_vsock() {
    [ ! -x "$tools/bin/vhost-device-vsock" ] || return 0
    if cargo install --quiet --locked --version 0.3.0 --root "$tools" vhost-device-vsock >"$VM_DIR/vhost-device-vsock.log" 2>&1; then
        echo "# installed vhost-device-vsock in $tools"
    else
        echo "# no vhost-device-vsock: $(tail -n 1 "$VM_DIR/vhost-device-vsock.log")"
    fi
}

# The second disk: everything that may change between runs.
make_payload() {
    local payload=$run_dir/payload cases=cases binary
    rm -rf "$payload"
    mkdir -p "$payload/bin"
    [ "$layer" = host ] || cases=cases_vms
    cp -r "$here/guest" "$VM_DIR/fakerapl.ko" "$payload/"
    cp -r "$here/$cases" "$payload/cases"
    echo "$@" >"$payload/wanted"
    sed -nE 's/^(ok|FAIL|skip) ([^ :]+).*/\2/p' "$run_dir/cases.log" >"$payload/done"
    for binary in "$jouled" "$joulectl" "$jouled_libvirt" "$tools/bin/vhost-device-vsock"; do
        [ ! -x "$binary" ] || cp "$binary" "$payload/bin/$(basename "$binary")"
    done
    [ ! -x "$payload/bin/jouled" ] || make -s -C "$top" install DESTDIR="$payload/tree" BUILT="$payload/bin"
    [ ! -x "$payload/bin/jouled-libvirt" ] || make -s -C "$top" install-libvirt DESTDIR="$payload/tree" BUILT_LIBVIRT="$payload/bin"
    [ "$layer" = host ] || make_nested "$payload"
    truncate -s 512M "$run_dir/payload.ext4"
    mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$payload" "$run_dir/payload.ext4"
}

# The VMs in the machine boot its own kernel, with an initramfs of two archives: what build.sh made, and what may change.
make_nested() {
    local dir=$run_dir/nested name
    mkdir -p "$dir/bin"
    install -m 755 "$here/nested/init" "$dir/init"
    for name in jouled joulectl; do
        [ ! -x "$1/bin/$name" ] || cp "$1/bin/$name" "$dir/bin/"
    done
    cp "$VM_DIR/vmlinuz" "$1/vmlinuz"
    { cat "$VM_DIR/nested.cpio"; (cd "$dir" && find . | cpio -o -H newc --quiet); } >"$1/nested.cpio"
    cp "$VM_DIR/vsk" "$1/bin/"
}

# Nothing that the machine writes is kept, and it has no network. The processor of layer host is an Intel one, because jouled accepts the
# core zone of RAPL only from those. It is a model from before RAPL: newer models have an empty PMU with the name that fakerapl needs. The
# processor of layer vms is an AMD one, whose virtualisation the emulator has, so that KVM works. The emulator is that of the Debian
# release that is booted, with its own libraries: QEMU 7.2 once crashed this kernel after a cmpxchg16b.
boot() {
    local processor=max,vendor=GenuineIntel,family=6,model=26,stepping=5,svm=off memory=1G
    [ "$layer" = host ] || processor=max memory=3G
    local root=$VM_DIR/root
    local devices=()
    [ "$layer" != host ] || start_bmc
    local emulator=("$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu"
        "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios")
    export QEMU_MODULE_DIR=$root/usr/lib/x86_64-linux-gnu/qemu
    : >"$run_dir/boot.log"
    "${emulator[@]}" -accel tcg,thread=multi,tb-size=512 -cpu "$processor" -smp 2 -m "$memory" -machine q35,sata=off,smbus=off \
        -nodefaults -no-user-config -display none -no-reboot \
        -drive "file=$VM_DIR/root.ext4,format=raw,if=none,id=root,cache=unsafe,snapshot=on" -device virtio-blk-pci,drive=root \
        -drive "file=$run_dir/payload.ext4,format=raw,if=none,id=payload,readonly=on" -device virtio-blk-pci,drive=payload \
        ${devices[@]+"${devices[@]}"} \
        -serial "file:$run_dir/console.log" -serial "file:$run_dir/boot.log" \
        -kernel "$VM_DIR/vmlinuz" -initrd "$VM_DIR/initrd.cpio" \
        -append 'console=ttyS0 quiet panic=-1 mitigations=off systemd.getty_auto=no' \
        </dev/null >"$run_dir/qemu.log" 2>&1 &
    qemu=$!
    started=$SECONDS
    timed_out=
}

# The machine's ACPI power meter, which the machine itself sets by pc-testdev, and its BMC on a socket of this run, whose answers the
# machine sets. bmc.py runs with the machine's own Python, for the same reason as the emulator.
start_bmc() {
    local lib=$root/usr/lib/x86_64-linux-gnu
    PYTHONHOME=$root/usr "$root/lib64/ld-linux-x86-64.so.2" --library-path "$lib" "$root/usr/bin/python3" -B \
        "$here/bmc.py" --listen "unix:$run_dir/bmc.sock" --control "$run_dir/bmc.control" </dev/null >"$run_dir/bmc.log" 2>&1 &
    bmc=$!
    devices=(-acpitable "file=$VM_DIR/pwrmeter.aml" -device pc-testdev
        -chardev "socket,id=bmc,path=$run_dir/bmc.sock,reconnect-ms=1000" -device "ipmi-bmc-extern,id=bmc0,chardev=bmc"
        -device "isa-ipmi-kcs,bmc=bmc0,irq=5"
        -chardev "file,id=control,path=$run_dir/bmc.control" -device "isa-debugcon,iobase=0x402,chardev=control")
}

running() {
    kill -0 "$qemu" 2>/dev/null
}

# Shows the lines of the cases as they arrive, until the machine turns itself off or its time is over.
watch() {
    tail -n +1 -s 0.5 -f --pid="$qemu" "$run_dir/boot.log" | grep --line-buffered -v '^end$' &
    local tail=$!
    while running; do
        if [ $((SECONDS - started)) -ge "$limit" ]; then
            timed_out=yes
            stop_machine
        fi
        sleep 0.5
    done
    wait "$tail" || true
    echo "# the machine of layer $layer lived for $((SECONDS - started)) s"
}

count_lines() {
    passed=$((passed + $(count '^ok ')))
    failed=$((failed + $(count '^FAIL ')))
    skipped=$((skipped + $(count '^skip ')))
    if ! ended; then
        failed=$((failed + 1))
        tail -n 20 "$run_dir/qemu.log" "$run_dir/console.log" | sed 's/^/# /'
        echo "# all of it: $VM_DIR/$layer/console.log"
        echo "FAIL vm: ${timed_out:+stopped after $limit s, }layer $layer did not come to the end of its cases"
    fi
}

count() {
    grep -c "$1" "$run_dir/cases.log" || true
}

stop_machine() {
    kill "$qemu" 2>/dev/null || true
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        running || return 0
        sleep 0.2
    done
    kill -KILL "$qemu" 2>/dev/null || true
}

cleanup() {
    [ -z "${qemu:-}" ] || stop_machine
    [ -z "${bmc:-}" ] || kill "$bmc" 2>/dev/null || true
    bmc=
    [ -d "${run_dir:-}" ] || return 0
    mkdir -p "$VM_DIR/$layer"
    cp "$run_dir"/*.log "$VM_DIR/$layer/" || true
    rm -rf "$run_dir"
}

main "$@"
