#!/bin/bash
# Boots a Debian machine with systemd as PID 1 in software emulation, and runs cases/ in it: one line a case, then the counts.
# It builds no jouled: give its binaries, or run `make` first. README.md says more.
#
#   run.sh [WORD…]   only the cases whose name contains one of the words
#   JOULED=FILE JOULECTL=FILE   binaries under test (default: target/release)
#   VM_DIR=DIR                  where the machine is kept (default: target/vm)
#   VM_TIMEOUT=SECONDS          limit for the machine's whole life (default: 420)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(realpath "$here/../../..")
export VM_DIR=${VM_DIR:-$top/target/vm}
jouled=${JOULED:-$top/target/release/jouled}
joulectl=${JOULECTL:-$top/target/release/joulectl}
limit=${VM_TIMEOUT:-420}
# build.sh ends with this where the machine lacks something, not where something is wrong.
cannot=77

main() {
    [ "$(uname -m)" = x86_64 ] || skip_all "needs x86_64, this is $(uname -m)"
    [ "$(id -u)" = 0 ] || skip_all "needs root, to build a Debian root file system"

    local status=0
    "$here/build.sh" || status=$?
    [ "$status" != "$cannot" ] || skip_all "the machine could not be built here, see above"
    [ "$status" = 0 ] || exit "$status"

    run_dir=$(mktemp -d "$VM_DIR/run.XXXXXX")
    trap cleanup EXIT
    trap 'exit 130' INT TERM
    make_payload "$@"
    boot
    watch
    summary
}

skip_all() {
    echo "skip vm: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

# The second disk: everything that may change from run to run.
make_payload() {
    local payload=$run_dir/payload
    mkdir -p "$payload/bin"
    cp -r "$here/guest" "$here/cases" "$VM_DIR/fakerapl.ko" "$payload/"
    echo "$@" >"$payload/wanted"
    [ ! -x "$jouled" ] || cp "$jouled" "$payload/bin/jouled"
    [ ! -x "$joulectl" ] || cp "$joulectl" "$payload/bin/joulectl"
    truncate -s 256M "$run_dir/payload.ext4"
    mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$payload" "$run_dir/payload.ext4"
}

# Nothing that the machine writes is kept. No network: it needs none. The processor is an Intel one, as RAPL's core zone is only
# believed of those, of a model from before RAPL: newer models have an empty PMU of the name that fakerapl needs. The emulator is the one
# of the Debian release that is booted, run with its own libraries: QEMU 7.2 once crashed this kernel after a cmpxchg16b.
boot() {
    local root=$VM_DIR/root
    local emulator=("$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu"
        "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios")
    export QEMU_MODULE_DIR=$root/usr/lib/x86_64-linux-gnu/qemu
    : >"$run_dir/cases.log"
    "${emulator[@]}" -accel tcg,thread=multi,tb-size=512 -cpu max,vendor=GenuineIntel,family=6,model=26,stepping=5,svm=off -smp 2 -m 1G -machine q35,sata=off,smbus=off \
        -nodefaults -no-user-config -display none -no-reboot \
        -drive "file=$VM_DIR/root.ext4,format=raw,if=none,id=root,cache=unsafe,snapshot=on" -device virtio-blk-pci,drive=root \
        -drive "file=$run_dir/payload.ext4,format=raw,if=none,id=payload,readonly=on" -device virtio-blk-pci,drive=payload \
        -serial "file:$run_dir/console.log" -serial "file:$run_dir/cases.log" \
        -kernel "$VM_DIR/vmlinuz" -initrd "$VM_DIR/initrd.cpio" \
        -append 'console=ttyS0 quiet panic=-1 mitigations=off systemd.getty_auto=no' \
        </dev/null >"$run_dir/qemu.log" 2>&1 &
    qemu=$!
    started=$SECONDS
}

running() {
    kill -0 "$qemu" 2>/dev/null
}

# Shows the cases' lines as they come, until the machine turns itself off or its time is over.
watch() {
    tail -n +1 -s 0.5 -f --pid="$qemu" "$run_dir/cases.log" | grep --line-buffered -v '^end$' &
    local tail=$!
    while running; do
        if [ $((SECONDS - started)) -ge "$limit" ]; then
            timed_out=yes
            stop_machine
        fi
        sleep 0.5
    done
    wait "$tail" || true
    echo "# the machine lived for $((SECONDS - started)) s"
}

summary() {
    local passed failed skipped
    passed=$(count '^ok ')
    failed=$(count '^FAIL ')
    skipped=$(count '^skip ')
    if ! grep -q '^end$' "$run_dir/cases.log"; then
        failed=$((failed + 1))
        tail -n 20 "$run_dir/qemu.log" "$run_dir/console.log" | sed 's/^/# /'
        echo "# all of it: $VM_DIR/console.log"
        echo "FAIL vm: ${timed_out:+stopped after $limit s, }it did not come to the end of the cases"
    fi
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
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
    cp "$run_dir"/*.log "$VM_DIR/"
    rm -rf "$run_dir"
}

main "$@"
