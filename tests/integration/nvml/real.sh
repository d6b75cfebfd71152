#!/usr/bin/env bash
# The checks of tests/integration/gpu.rs that want a real NVIDIA GPU, with a program that keeps it busy. Skips, with its reason, elsewhere.
# real.sh [TEST-BINARY]: the built tests (target/debug/deps/integration-…), for machines without Rust; else cargo builds it.
# Where /sys/module/nvidia is hidden (some containers), JOULED_NVML_LIBRARY names the library.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -e /sys/module/nvidia ] && [ -z "${JOULED_NVML_LIBRARY:-}" ]; then
    echo "skipped: the NVIDIA driver is not loaded (no /sys/module/nvidia)"
    exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cc -O1 -o "$dir/burn" "$here/burn.c" -ldl
status=0
timeout 3 "$dir/burn" || status=$?
if [ "$status" = 124 ]; then
    export JOULED_GPU_BURNER=$dir/burn
else
    echo "no program keeps the GPU busy (see above): only its energy is checked"
fi
if [ $# -gt 0 ]; then
    "$1" a_real_gpu --nocapture
else
    cargo test --locked --test integration gpu::a_real_gpu -- --nocapture
fi
