#!/usr/bin/env bash
# The figures of models/demo/README.md, or those of another model folder: scripts/eval.sh FOLDER.
# Confusion matrices go to target/eval. Streams are H.264 and need GStreamer.
source "$(dirname "$0")/steps.sh"

step "xclipd" cargo build --release --locked --bin xclipd
step "clips and streams" target/release/xclipd eval --model "${1:-models/demo}" --clips 1000 \
    --streams 20 --seconds 120 --out target/eval
