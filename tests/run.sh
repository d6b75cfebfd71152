#!/bin/bash
# Runs the tests that the arguments of `cargo test` select. Many tests wait for real daemons, and some compare the kernel's accounts: on a
# busy machine, or where its host takes time of it, one of them can fail. Up to eight that fail are run once more, each alone, and are
# named at the end. A real fault fails again.
#
#   tests/run.sh -- --skip root_ --test-threads 12
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
[ "$status" != 0 ] || exit 0
mapfile -t failed < <(sed -nE 's/^test (.+) \.\.\. FAILED$/\1/p' "$log" | sort -u)
if [ "${#failed[@]}" = 0 ] || [ "${#failed[@]}" -gt 8 ]; then exit "$status"; fi

for name in "${failed[@]}"; do
    printf '\nagain, alone: %s\n' "$name"
    cargo test --locked -- --exact "$name" --include-ignored --test-threads 1 2>&1 | tee "$log"
    [ "${PIPESTATUS[0]}" = 0 ] || exit 1
    grep -qE '^test result: ok\. [1-9]' "$log" || { echo "$name did not run again" >&2; exit 1; }
done
printf '\nFailed beside other tests, and passed alone:\n'
printf '  %s\n' "${failed[@]}"
