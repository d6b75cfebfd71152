#!/bin/bash
# Boots a Debian with systemd as PID 1 and a real bus in systemd-nspawn, installs jouled in it as an operator would, and runs cases: one
# line a case, then the counts. It builds no jouled: give its binaries or packages, or run `make` first. README.md says more.
#
#   run.sh [WORD…]                  only the cases whose name contains one of the words (and the installation)
#   run.sh --prepare                only build the root file systems; needs no jouled
#   SYSTEM_SUITES="trixie bookworm" Debian releases (default: trixie)
#   SYSTEM_DEBS=DIR                 packages to install (default: target/deb, where there are any; else `make install`)
#   BUILT=DIR                       binaries for `make install` (default: target/release)
#   SYSTEM_DIR=DIR                  where roots are kept (default: target/system)
#   SYSTEM_TIMEOUT=SECONDS          limit for each suite (default: 900)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(realpath "$here/../../..")
target=${CARGO_TARGET_DIR:-$top/target}
export SYSTEM_DIR=${SYSTEM_DIR:-$target/system}
suites=${SYSTEM_SUITES:-trixie}
debs=${SYSTEM_DEBS:-$target/deb}
built=${BUILT:-$target/release}
limit=${SYSTEM_TIMEOUT:-900}
passed=0 failed=0 skipped=0 again=()
# build.sh ends with this where the machine lacks something, not where something is wrong.
cannot=77

main() {
    [ "$(id -u)" = 0 ] || skip_all "needs root, to build and boot a Debian root file system"
    [ "${1:-}" = --prepare ] || [ -x "$built/jouled" ] || skip_all "no jouled in $built: run make first"
    local status
    trap cleanup EXIT
    trap 'exit 130' INT TERM
    for suite in $suites; do
        case $suite in bookworm | trixie) ;; *) echo "run.sh: SYSTEM_SUITES is of \"bookworm\" and \"trixie\", not \"$suite\"" >&2; exit 2 ;; esac
        status=0
        "$here/build.sh" "$suite" || status=$?
        [ "$status" != "$cannot" ] || skip_all "$suite could not be built here, see above"
        [ "$status" = 0 ] || exit "$status"
        [ "${1:-}" = --prepare ] && continue
        run_suite "$@"
        # On a busy machine a case can wait in vain. Up to three that fail are run once more, in a machine that is booted again; a fault
        # fails again.
        if [ "${#again[@]}" -ge 1 ] && [ "${#again[@]}" -le 3 ]; then
            echo "# again: ${again[*]}"
            failed=$((failed - ${#again[@]}))
            run_suite "${again[@]}"
        fi
    done
    [ "${1:-}" != --prepare ] || return 0
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

skip_all() {
    echo "skip system: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

run_suite() {
    root=$SYSTEM_DIR/$suite/root
    run_dir=$(mktemp -d "$SYSTEM_DIR/$suite/run.XXXXXX")
    machine=jouled-$suite-$$
    make_payload "$@"
    echo "# $suite"
    mkdir "$run_dir/upper" "$run_dir/work" "$run_dir/root"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$run_dir/upper,workdir=$run_dir/work" "$run_dir/root"
    boot
    watch
    count_lines
    cleanup
}

# Everything that may change between runs. The runner and the reader of /metrics are those of the emulated machines.
make_payload() {
    payload=$run_dir/payload
    mkdir -p "$payload/deb"
    cp -r "$here/../vm/guest" "$here/cases" "$payload/"
    cp "$here/guest"/*.py "$payload/guest/"
    touch "$payload/cases.log" "$payload/done"
    echo "${*:+a_install }$*" >"$payload/wanted"
    local newest
    newest=$(find "$debs" -maxdepth 1 -name "jouled_*_$(dpkg --print-architecture).deb" 2>/dev/null | head -n 1) || true
    if [ -n "$newest" ] && [ -z "${SYSTEM_DEBS:-}" ] && [ -n "$(find "$built/jouled" "$top/packaging/deb" "$top/systemd" -newer "$newest")" ]; then
        echo "skip package: $newest is older than what it is made of: make deb"
        skipped=$((skipped + 1))
    elif [ -n "$newest" ]; then
        cp "$debs"/jouled*_"$(dpkg --print-architecture)".deb "$payload/deb/"
    fi
    previous_package
    make -s -C "$top" install DESTDIR="$payload/tree" BUILT="$built" PREFIX=/usr
    cp -r "$top/docs" "$payload/docs"
    # The certificate of a simulated service: the booted system has no openssl. Without one, its cases are skipped.
    mkdir "$payload/tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$payload/tls/key.pem" -out "$payload/tls/cert.pem" 2>/dev/null || rm -f "$payload/tls"/*.pem
    local kind
    mkdir "$payload/examples"
    for kind in busctl system; do "$top/tests/integration/man/examples.sh" "$kind" >"$payload/examples/$kind"; done
}

# The package that the upgrade case begins with, or the reason why there is none.
previous_package() {
    local package status=0
    mkdir "$payload/previous"
    [ -n "$(ls "$payload/deb")" ] || { echo "no package was given" >"$payload/previous/why"; return; }
    package=$("$top/packaging/previous.sh" 2>"$payload/previous/why") || status=$?
    case $status in
    0) cp "$package" "$payload/previous/" ;;
    "$cannot") ;;
    *) cat "$payload/previous/why" >&2; exit "$status" ;;
    esac
}

# With the systemd-nspawn of the Debian that is booted, and its own libraries, so that it is the same on every machine. The only network
# is a loopback device. The system calls of eBPF are allowed, which nspawn forbids by default.
boot() {
    local lib
    lib=$(dirname "$root"/usr/lib/*/libc.so.6)
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    setsid "$root"/lib*/ld-linux-*.so.* --library-path "$lib:$lib/systemd" "$root/usr/bin/systemd-nspawn" -q \
        -M "$machine" -D "$run_dir/root" --boot --register=no --keep-unit --private-network --console=read-only \
        --capability=all --system-call-filter="bpf perf_event_open @keyring" --bind="$payload:/payload" \
        </dev/null >"$run_dir/console.log" 2>&1 &
    nspawn=$!
    started=$SECONDS
    timed_out=
}

running() {
    kill -0 "$nspawn" 2>/dev/null
}

# Shows the lines of the cases as they arrive, until the machine turns itself off or its time is over.
watch() {
    tail -n +1 -s 0.2 -f --pid="$nspawn" "$payload/cases.log" | grep --line-buffered -v '^end$' &
    local tail=$!
    while running; do
        if [ $((SECONDS - started)) -ge "$limit" ]; then
            timed_out=yes
            stop_machine
        fi
        sleep 0.2
    done
    wait "$tail" || true
    echo "# $suite lived for $((SECONDS - started)) s"
}

count_lines() {
    passed=$((passed + $(count '^ok ')))
    failed=$((failed + $(count '^FAIL ')))
    skipped=$((skipped + $(count '^skip ')))
    mapfile -t again < <(sed -nE 's/^FAIL ([a-z0-9_]+\.[a-z0-9_]+):.*/\1/p' "$payload/cases.log")
    if ! grep -q '^end$' "$payload/cases.log"; then
        failed=$((failed + 1))
        tail -n 20 "$run_dir/console.log" | sed 's/^/# /'
        echo "FAIL system: ${timed_out:+stopped after $limit s, }$suite did not come to the end of its cases"
    fi
}

count() {
    grep -c "$1" "$payload/cases.log" || true
}

# nspawn halts the machine on SIGTERM; where that takes too long, its PID 1 is killed as well.
stop_machine() {
    running || return 0
    kill "$nspawn" 2>/dev/null || true
    for _ in $(seq 25); do
        running || return 0
        sleep 0.2
    done
    local child
    for child in $(cat "/proc/$nspawn/task/$nspawn/children" 2>/dev/null); do
        kill -KILL "$child" 2>/dev/null || true
    done
    kill -KILL "$nspawn" 2>/dev/null || true
}

cleanup() {
    [ -z "${nspawn:-}" ] || stop_machine
    nspawn=
    [ -d "${run_dir:-}" ] || return 0
    # nspawn leaves this folder, which stays where /run is on a disk.
    rmdir "/run/systemd/nspawn/propagate/$machine" 2>/dev/null || true
    for _ in 1 2 3 4 5; do
        umount "$run_dir/root" 2>/dev/null && break
        sleep 0.2
    done
    if mountpoint -q "$run_dir/root"; then
        echo "run.sh: $run_dir/root is still mounted: left" >&2
        return 0
    fi
    cp "$run_dir"/*.log "$run_dir/payload"/*.log "$SYSTEM_DIR/$suite/" 2>/dev/null || true
    rm -rf "$run_dir"
}

main "$@"
