#!/usr/bin/env bash
# Trains the demo model from nothing into target/train and exports it to target/train/demo: first plain scenes,
# then the whole world from those weights. Goes on where it stopped. TRAIN_CLIPS_PLAIN and TRAIN_CLIPS_WHOLE
# change the lengths; models/demo/README.md says how long it takes.
source "$(dirname "$0")/steps.sh"

out=$(target_dir)/train
export XCLIPD=${XCLIPD:-$(target_dir)/release/xclipd}
python=$out/venv/bin/python

environment() {
    mkdir -p "$out"
    [ -x "$python" ] || python3 -m venv "$out/venv"
    "$python" -m pip install --quiet -r training/requirements.txt
}

# learn FOLDER CLIPS OPTIONS...: nothing to do if its model is there.
learn() {
    local folder=$1 clips=$2
    shift 2
    [ -f "$folder/done" ] && return
    "$python" training/train.py --out "$folder" --clips "$clips" "$@"
    # train.py also ends, early, where somebody asked it to stop.
    [ ! -f "$folder/stop" ] || fail "stopped; run it again to go on"
    touch "$folder/done"
}

step "drawing program" cargo build --release --locked --no-default-features --bin xclipd
step "Python environment" environment
step "plain scenes" learn "$out/plain" "${TRAIN_CLIPS_PLAIN:-150000}" --hardness 0.1 0.15
step "whole world" learn "$out/whole" "${TRAIN_CLIPS_WHOLE:-250000}" --warm "$out/plain" --seed 500000000 \
    --hardness 0.8 0.8 --rate 5e-4 --decay 0.75
step "export" "$python" training/export.py "$out/whole" "$out/demo"
echo "the model is in $out/demo; measure it with: scripts/eval.sh $out/demo"
