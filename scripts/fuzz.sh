#!/usr/bin/env bash
# Runs the fuzz targets of crates/pgformat, each for a while: scripts/fuzz.sh [TARGET]...
#
#   FUZZ_SECONDS  how long each runs (60)
#
# It needs a C++ compiler. Inputs begin with log of real servers (the fixtures of the tests) and are kept in
# target/fuzz/corpus; what fails is written to target/fuzz/artifacts, and its name printed.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
targets=("$@")
[ $# -gt 0 ] || targets=(log filter records summary image)
work=$PWD/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

cargo run --quiet -p everpoint-pgformat --example fuzz_seeds -- "$work/seeds"
# What cargo-fuzz would do. Instrumentation is an unstable option of a stable compiler.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cdebug-assertions -Coverflow-checks --cfg=fuzzing" \
    cargo build --quiet --release --target "$host" --target-dir "$work/build" \
    --manifest-path crates/pgformat/fuzz/Cargo.toml
for target in "${targets[@]}"; do
    mkdir -p "$work/corpus/$target" "$work/artifacts"
    echo "fuzz: $target, $seconds s" >&2
    "$work/build/$host/release/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="$work/artifacts/$target-" "$work/corpus/$target" "$work/seeds/$target" \
        2>"$work/$target.log" || { tail -40 "$work/$target.log" >&2; exit 1; }
    grep -E '^(stat::number_of_executed_units|Done|#[0-9]+.*DONE)' "$work/$target.log" >&2 || true
done
