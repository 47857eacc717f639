#!/usr/bin/env bash
# The figures of models/demo/README.md, or those of another model folder: scripts/eval.sh FOLDER.
# Confusion matrices, sweeps of the gate's settings and reliability go to target/eval. EVAL_CLIPS,
# EVAL_STREAMS and EVAL_SECONDS make it shorter.
source "$(dirname "$0")/steps.sh"
scripts/setup.sh

target=$(target_dir)
step "xclipd" cargo build --release --locked --bin xclipd
step "clips and streams" "$target/release/xclipd" eval --model "${1:-demo}" --clips "${EVAL_CLIPS:-1000}" \
    --streams "${EVAL_STREAMS:-20}" --seconds "${EVAL_SECONDS:-120}" --out "$target/eval" --sweep
