#!/bin/sh
# Runs every fuzz target with the address sanitizer, for FUZZ_SECONDS in all, and says how many inputs each has seen.
# What the fuzzer learns stays in the build folder; a crashing input is left in rust/fuzz/artifacts, for the corpus.
set -eu
cd "$(dirname "$0")/../.."

seconds=${FUZZ_SECONDS:-600}
targets=${FUZZ_TARGETS:-gguf safetensors config tokenizer_gguf tokenizer_directory chat_template}
build=${CARGO_TARGET_DIR:-target}/fuzz

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs nightly Rust: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzzing needs cargo-fuzz: cargo install --locked cargo-fuzz" >&2
    exit 1
fi

# Symbols for the reports, and none of the optimisations across crates that would triple the build.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
fuzz() {
    command=$1
    shift
    cargo +nightly fuzz "$command" --fuzz-dir rust/fuzz --target-dir "$build" --features libfuzzer "$@"
}

fuzz build
share=$((seconds / $(echo $targets | wc -w)))
for target in $targets; do
    echo "==> $target, $share seconds"
    mkdir -p "$build/corpus/$target"
    log="$build/$target.log"
    # A single allocation of 64 MiB for a file of at most 64 KiB is a finding in itself. A template may use more, and time.
    limit=64 timeout=10 leaks=1
    # The thread of a template may still be on its way out when leaks are counted, and what it frees last looks like one.
    if [ "$target" = chat_template ]; then limit=512 timeout=60 leaks=0; fi
    if ! fuzz run "$target" "$build/corpus/$target" "rust/fuzz/corpus/$target" -- \
        -max_total_time="$share" -max_len=65536 -malloc_limit_mb="$limit" -timeout="$timeout" -detect_leaks="$leaks" -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        exit 1
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    echo "$target: $executions executions, $covered edges covered, nothing found"
done
