#!/bin/bash
# Builds jouled, starts it in a folder of its own and shows `joulectl top` until Ctrl-C (or COUNT ticks). Leaves nothing behind, and
# leaves a jouled that is installed alone. As root it measures all; as a plain user what that may, and says what it may not.
#
#   run.sh [COUNT]
#   JOULED_PORT=PORT   where /metrics is (default: 28282, or the next free one)
set -euo pipefail
cd "$(dirname "$0")/../.."
count=${1:-}
bin=${CARGO_TARGET_DIR:-target}/release
dir='' jouled='' top='' printed=0

main() {
    [[ $count =~ ^([1-9][0-9]*)?$ ]] || fail 2 "COUNT is a number of ticks, not \"$count\""
    build
    local port
    port=$(free_port)
    trap cleanup EXIT
    trap stop_top INT TERM HUP
    start "127.0.0.1:$port"
    echo "run: metrics: http://127.0.0.1:$port/metrics"
    echo "run: ask it:  $bin/joulectl --socket $dir/jouled.sock status"
    show
}

fail() {
    echo "run: $2" >&2
    exit "$1"
}

# As the owner of this checkout: with sudo, root has no Rust, and would leave files that the owner cannot replace.
build() {
    local owner
    owner=$(stat -c %U .)
    if [ "$(id -u)" = 0 ] && [ "$owner" != root ] && [ "$owner" != UNKNOWN ]; then
        local home
        home=$(getent passwd "$owner" | cut -d: -f6)
        command -v cc >/dev/null || HOME=$home packaging/dev/deps.sh
        runuser -u "$owner" -- env HOME="$home" PATH="$home/.cargo/bin:$PATH" \
            cargo build --release --locked --bins
    else
        packaging/dev/deps.sh
        PATH=$PATH:$HOME/.cargo/bin cargo build --release --locked --bins
    fi
}

in_use() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
    local first=${JOULED_PORT:-28282} port
    for ((port = first; port < first + 20; port++)); do
        if ! in_use "$port"; then
            echo "$port"
            return
        fi
        echo "run: port $port is in use (by a jouled that is installed?): taking the next" >&2
    done
    fail 1 "ports $first to $((port - 1)) are in use: choose one with JOULED_PORT=PORT"
}

start() {
    local parent=${XDG_RUNTIME_DIR:-}
    [ -n "$parent" ] && [ -w "$parent" ] || parent=/tmp
    dir=$(mktemp -d "$parent/jouled-run.XXXXXX")
    # A process group of its own, so that Ctrl-C reaches joulectl first and jouled last.
    set -m
    # JOULED_PORT is ours; jouled would take it for a key of its configuration. Guests and hosts are an installed jouled's to talk to.
    env -u JOULED_PORT JOULED_METER__VSOCK__CONNECT=off JOULED_EXPORT__GUEST__VSOCK=off JOULED_EXPORT__DBUS__USE=off JOULED_CONTROL__SOCKET="$dir/jouled.sock" \
        "$bin/jouled" --listen "$1" --state-dir "$dir/state" \
        >"$dir/log" 2>&1 </dev/null &
    jouled=$!
    set +m
    local try
    for ((try = 0; try < 100; try++)); do
        if [ -S "$dir/jouled.sock" ]; then
            break
        fi
        alive "$jouled" || ended
        sleep 0.1
    done
    [ -S "$dir/jouled.sock" ] || { print_log; fail 1 "jouled did not open its socket in 10 s"; }
    print_log
}

alive() {
    kill -0 "$1" 2>/dev/null
}

# What jouled logged since the last call.
print_log() {
    tail -c "+$((printed + 1))" "$dir/log"
    printed=$(stat -c %s "$dir/log")
}

# jouled ended by itself: its reason is in its log, its exit code is ours.
ended() {
    local status=0
    wait "$jouled" || status=$?
    jouled=''
    print_log
    fail "$((status == 0 ? 1 : status))" "jouled ended by itself with code $status, see above"
}

show() {
    "$bin/joulectl" --socket "$dir/jouled.sock" top ${count:+-n "$count"} &
    top=$!
    local status=0
    # Looks, rather than waits: a child that ends while a trap runs is not seen by `wait -n`, which then waits for the other one.
    while alive "$top"; do
        if ! alive "$jouled"; then
            stop_top
            wait "$top" || true
            ended
        fi
        sleep 0.2 || true
    done
    wait "$top" || status=$?
    return "$status"
}

stop_top() {
    [ -z "$top" ] || kill -TERM "$top" 2>/dev/null || true
}

cleanup() {
    local status=$?
    trap '' INT TERM HUP
    if [ -n "$jouled" ] && alive "$jouled"; then
        kill -TERM "$jouled"
        local try
        for ((try = 0; try < 100; try++)); do
            alive "$jouled" || break
            sleep 0.1
        done
        kill -KILL "$jouled" 2>/dev/null || true
        wait "$jouled" 2>/dev/null || true
    fi
    # The view has covered what jouled said meanwhile.
    [ ! -f "$dir/log" ] || print_log
    [ -z "$dir" ] || rm -rf "$dir"
    exit "$status"
}

main
