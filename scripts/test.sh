#!/usr/bin/env bash
# Every test: unit, property, integration, doc. Extra arguments go to cargo test. Ends with one line that adds up the results of all test binaries.
source "$(dirname "$0")/steps.sh"
scripts/setup.sh

log=$(mktemp)
trap 'rm -f "$log"' EXIT

summary() {
    awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
         END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
}

status=0
cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
summary
exit "$status"
