#!/usr/bin/env python3
"""Times transformers' XCLIPModel (eager, f32, CPU) on one window, to stand beside `xclipd bench`.

    python benches/peers/torch_window.py [base-patch32] [threads] [windows]

Needs torch and transformers; weights are the recipe's (tests/golden/gen_golden.py). Timed: pixels to the
MIT's video vector, which leaves out the prompts (0.3 % of the work at 10 labels).
"""
import os, statistics, sys, time
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../tests/golden"))
import torch
from gen_golden import CONFIGS, build

name = sys.argv[1] if len(sys.argv) > 1 else "base-patch32"
torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count())
windows = int(sys.argv[3]) if len(sys.argv) > 3 else 15
torch.set_grad_enabled(False)
model, _ = build(name)
vision = CONFIGS[name]["vision_config"]
side = vision["image_size"]
pixels = torch.rand(1, vision["num_frames"], 3, side, side)
times = []
for i in range(windows + 2):
    start = time.perf_counter()
    model.get_video_features(pixels)
    if i >= 2:
        times.append(1e3 * (time.perf_counter() - start))
print(f"{name}: torch {torch.__version__}, {torch.get_num_threads()} threads: "
      f"median {statistics.median(times):.1f} ms, {min(times):.1f} to {max(times):.1f}")
