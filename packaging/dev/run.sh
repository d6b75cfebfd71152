#!/bin/bash
# Builds jouled, starts it with its own temporary folder, and shows `joulectl top` until Ctrl-C (or for COUNT ticks). It removes the folder at
# the end, and does not affect an installed jouled. As root jouled measures everything. As a plain user it reports what it cannot read.
#
#   run.sh [COUNT]
#   JOULED_PORT=PORT   the port of /metrics (default: 28282, or the next free one)
set -euo pipefail
cd "$(dirname "$0")/../.."
count=${1:-}
bin=${CARGO_TARGET_DIR:-target}/release
dir='' jouled='' top='' printed=0

main() {
    [[ $count =~ ^([1-9][0-9]*)?$ ]] || fail 2 "COUNT must be a number of ticks, and is \"$count\""
    build
    local port
    port=$(free_port)
    trap cleanup EXIT
    trap stop_top INT TERM HUP
    start "127.0.0.1:$port"
    echo "run: page:    http://127.0.0.1:$port/"
    echo "run: metrics: http://127.0.0.1:$port/metrics"
    echo "run: status:  $bin/joulectl --socket $dir/jouled.sock status"
    show
}

fail() {
    echo "run: $2" >&2
    exit "$1"
}

# Builds as the owner of this checkout: with sudo, root usually has no Rust, and would create files that the owner cannot replace.
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
        echo "run: port $port is in use (by an installed jouled?): trying the next one" >&2
    done
    fail 1 "ports $first to $((port - 1)) are in use: choose one with JOULED_PORT=PORT"
}

start() {
    local parent=${XDG_RUNTIME_DIR:-}
    [ -n "$parent" ] && [ -w "$parent" ] || parent=/tmp
    dir=$(mktemp -d "$parent/jouled-run.XXXXXX")
    # jouled gets its own process group, so that Ctrl-C ends joulectl first and jouled last.
    set -m
    # jouled would take JOULED_PORT for a key of its configuration. The guest channel, the host channel and D-Bus are left to an installed
    # jouled.
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

# Prints the log of jouled since the last call.
print_log() {
    tail -c "+$((printed + 1))" "$dir/log"
    printed=$(stat -c %s "$dir/log")
}

# jouled ended by itself: print its log, and exit with its exit code.
ended() {
    local status=0
    wait "$jouled" || status=$?
    jouled=''
    print_log
    fail "$((status == 0 ? 1 : status))" "jouled ended with code $status, see its log above"
}

show() {
    "$bin/joulectl" --socket "$dir/jouled.sock" top ${count:+-n "$count"} &
    top=$!
    local status=0
    # Polling: `wait -n` misses a child that ends while a trap runs, and then waits for the other child.
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
    # The live view covered the log of this time.
    [ ! -f "$dir/log" ] || print_log
    [ -z "$dir" ] || rm -rf "$dir"
    exit "$status"
}

main
