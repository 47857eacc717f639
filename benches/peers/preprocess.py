"""One 1080p frame to the model's input: our reducer against Hugging Face's processor, in turns.

Ours starts from the decoder's NV12 and is timed by benches/preprocess.rs. The processor starts from RGB:
what turns NV12 into RGB would come on top of its time. Both on one thread, as on a streaming thread.
"""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, SIZE = 1920, 1080, 224
ROOT = Path(__file__).resolve().parents[2]
CASE = f"reduce/Nv12-{WIDTH}x{HEIGHT}-{SIZE}/cpu"


def processor():
    """Seconds per frame: from an array of interleaved RGB, and from a tensor that is planar already."""
    import torch
    from transformers import VideoMAEImageProcessor

    torch.set_num_threads(1)
    processor = VideoMAEImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frame = (125 + 25 * np.sin(columns * 0.03 + rows * 0.02)).astype(np.uint8)
    frame = np.repeat(frame[:, :, None], 3, axis=2)
    planar = torch.from_numpy(frame).permute(2, 0, 1).contiguous()

    def median(picture, runs=30):
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            processor([picture], return_tensors="pt")
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return median(frame), median(planar)


def ours():
    """Seconds per frame, criterion's median."""
    subprocess.run(["cargo", "bench", "--quiet", "--locked", "--bench", "preprocess", "--", "--noplot",
                    "--warm-up-time", "0.5", "--measurement-time", "2", f"^{CASE}$"], check=True, cwd=ROOT,
                   stdout=subprocess.DEVNULL)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    estimates = target / "criterion" / CASE.replace("/", "_") / "new/estimates.json"
    if not estimates.exists():
        estimates = target / "criterion" / CASE / "new/estimates.json"
    return json.loads(estimates.read_text())["median"]["point_estimate"] / 1e9


def measure(rounds):
    times = {"interleaved": [], "planar": [], "ours": []}
    for _ in range(rounds):
        interleaved, planar = processor()
        times["interleaved"].append(interleaved)
        times["planar"].append(planar)
        times["ours"].append(ours())
    return times
