#!/usr/bin/env bash
# The figures of models/demo/README.md, or those of another model folder: scripts/eval.sh FOLDER.
# Confusion matrices, plots of the gate's settings and reliability go to target/eval. EVAL_CLIPS,
# EVAL_STREAMS, EVAL_QUIET (streams with nothing listed: false events are rare) and EVAL_SECONDS make it shorter.
source "$(dirname "$0")/steps.sh"
scripts/setup.sh

model=${1:-demo}
target=$(target_dir)
seconds=${EVAL_SECONDS:-120}
step "xclipd" cargo build --release --locked --bin xclipd --example rtsp_eval
step "clips and streams" "$target/release/xclipd" eval --model "$model" --clips "${EVAL_CLIPS:-1000}" \
    --streams "${EVAL_STREAMS:-20}" --quiet-streams "${EVAL_QUIET:-30}" --seconds "$seconds" \
    --out "$target/eval" --sweep --cameras
# The sweep chose the gate's defaults; other streams judge them.
step "fresh streams" "$target/release/xclipd" eval --model "$model" --clips 0 --streams "${EVAL_STREAMS:-20}" \
    --quiet-streams "${EVAL_QUIET:-30}" --seconds "$seconds" --skip-streams 100
step "two streams over RTSP" "$target/release/examples/rtsp_eval" "$model" "$seconds"
