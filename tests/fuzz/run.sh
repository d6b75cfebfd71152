#!/bin/bash
# Builds the fuzz targets and runs them one after the other. A crash is printed with the command that replays it; the others still run.
#
#   run.sh           every target for FUZZ_SECONDS (60)
#   TARGET=NAME run.sh       one target, or several: TARGET="core dbus"
#   run.sh --build   builds only
#   FUZZ_PROFILE=dev run.sh  built in a quarter of the time, and slower
#
# What was found to reach new code is kept in target/fuzz/corpus, and used by the next run. FUZZ_SECONDS=0 runs each seed once.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-60}
profile=${FUZZ_PROFILE:-fuzz}
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
# Counters of each edge and traced compares, which libFuzzer learns from, without a sanitizer: these need another standard library. The
# flags are for $host alone, so that build scripts and macros are not instrumented.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
# Names of jouled's own environment are configuration.
unset "${!JOULED_@}"

main() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage" cargo build --locked --manifest-path tests/fuzz/Cargo.toml --target-dir "$out" --profile "$profile" \
        --target "$host"
    fuzz=$out/$host/${profile/#dev/debug}/fuzz
    [ "${1:-}" != --build ] || return 0
    local failed=() passed=0 target
    for target in ${TARGET:-$(names)}; do
        if fuzz "$target"; then passed=$((passed + 1)); else failed+=("$target"); fi
    done
    echo "fuzz: $passed passed, ${#failed[@]} failed${failed[*]:+: ${failed[*]}}"
    [ "${#failed[@]}" = 0 ]
}

names() { sed -n 's/^    ("\([a-z-]*\)", [a-z_]*::[a-z_]*),$/\1/p' tests/fuzz/src/main.rs; }

fuzz() {
    local target=$1 seeds=tests/fuzz/seeds/$1 corpus=$out/corpus/$1 found=$out/found/$1 log=$out/$1.log
    local limits=(-max_len=32768 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 "-seed=${FUZZ_SEED:-0}" "-artifact_prefix=$found/")
    mkdir -p "$corpus" "$found"
    if [ -d "$seeds" ]; then corpus="$corpus $seeds"; fi
    if [ "$seconds" = 0 ]; then limits+=(-runs=0); else limits+=("-max_total_time=$seconds"); fi
    # shellcheck disable=SC2086
    if FUZZ_TARGET=$target "$fuzz" "${limits[@]}" $corpus >"$log" 2>&1; then
        awk -v target="$target" '/number_of_executed_units/ { runs = $2 } / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
            /peak_rss_mb/ { rss = $2 } END { printf "fuzz: %-16s %12d executions, %6d edges, %4d MB\n", target, runs, edges, rss }' "$log"
        return
    fi
    # A panic of a target, or what libFuzzer says of time and memory.
    grep -A 4 'panicked at' "$log" || grep -v -E '^(#[0-9]+|INFO:|stat::)' "$log" | tail -n 30
    local input
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    echo "fuzz: $target failed: the whole log is $log; to replay it:"
    echo "    FUZZ_TARGET=$target RUST_BACKTRACE=1 $fuzz ${input:-SEED}"
    return 1
}

main "$@"
