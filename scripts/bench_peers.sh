#!/usr/bin/env bash
# Times PyTorch, ONNX Runtime, OpenVINO and a naive Python pipeline in turns with ours, on the same
# generated weights, input and threads, and writes benches/RESULTS.md. The peers live in their own
# virtual environment under target/peers, some 8 GB with the exported models. Arguments: --help.
source "$(dirname "$0")/steps.sh"
scripts/setup.sh
work=target/peers wanted=benches/peers/requirements.txt
mkdir -p "$work"

if ! cmp --silent "$wanted" "$work/venv/requirements.txt"; then
    python3 -m venv "$work/venv" ||
        fail "python3 cannot make virtual environments; on Debian: apt-get install python3-venv"
    "$work/venv/bin/pip" install --quiet --requirement "$wanted"
    cp "$wanted" "$work/venv/requirements.txt"
fi
cargo build --release --locked
exec "$work/venv/bin/python" benches/peers/run.py "$@"
