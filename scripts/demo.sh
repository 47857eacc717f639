#!/usr/bin/env bash
# A scripted camera plays a scene as H.264 over RTSP on loopback; xclipd watches it like any camera:
# rtspsrc ! decode ! xclipdetect ! xclipoverlay ! encode. Then the events stand beside the truth.
# Leaves demo.mp4. Fails when precision or recall of the events is below 0.8.
source "$(dirname "$0")/steps.sh"
scripts/setup.sh

labels="walking; waving; lying on the ground; climbing a fence; two people fighting; running"
build=$(target_dir)/debug
work=$build/demo

echo "==> build (minutes the first time)"
cargo build --quiet --locked --bin xclipd --example rtsp_scene
mkdir -p "$work"
rm -f "$work"/*.ndjson demo.mp4

coproc camera { exec "$build/examples/rtsp_scene" pipelines/demo.scene.yaml "$work/truth.ndjson"; }
camera_id=${camera_PID:-}
trap '[ -z "$camera_id" ] || kill "$camera_id" 2>/dev/null || true' EXIT
read -r -t 30 address 2>/dev/null <&"${camera[0]:-0}" || fail "the camera does not start"

echo "==> watching $address for: $labels"
"$build/xclipd" detect "$address" --labels "$labels" --format table \
    --annotate demo.mp4 --events "$work/events.ndjson"

echo
echo "==> the events beside what the script says"
"$build/xclipd" eval --events "$work/events.ndjson" --truth "$work/truth.ndjson" \
    --labels "$labels" --at-least 0.8
echo "==> demo.mp4 shows it with the overlay"
