"""The naive way through a video: PyAV decodes, Hugging Face's processor, XCLIPModel; label texts cached.

python benches/peers/naive.py VIDEO FOLDER THREADS

Every 4th frame, 8 to a window, windows do not overlap. Prints one line of JSON; loading and one window
to warm up are not in its times.
"""

import json
import sys
import time
from pathlib import Path

import av
import numpy as np
import torch

import checkpoint

STEP = 4


def frames(video, threads):
    """Every STEP-th picture, as RGB."""
    with av.open(video) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        for number, frame in enumerate(container.decode(stream)):
            if number % STEP == 0:
                yield frame.to_ndarray(format="rgb24")


def main(video, folder, threads):
    from transformers import VideoMAEImageProcessor

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    config = json.loads((folder / "config.json").read_text())
    length = config["vision_config"]["num_frames"]
    processor = VideoMAEImageProcessor.from_pretrained(folder)
    window, _ = checkpoint.modules(folder)
    features = torch.from_numpy(np.load(folder / "input.npz")["features"])
    times = dict(processor=0.0, model=0.0)

    def score(clip):
        start = time.perf_counter()
        pixels = processor(clip, return_tensors="pt")["pixel_values"]
        middle = time.perf_counter()
        window(pixels, features)
        times["processor"] += middle - start
        times["model"] += time.perf_counter() - middle

    start = time.perf_counter()
    first = [frame for frame, _ in zip(frames(video, threads), range(length))]
    score(first)
    times = dict.fromkeys(times, 0.0)

    start, windows, clip = time.perf_counter(), 0, []
    for frame in frames(video, threads):
        clip.append(frame)
        if len(clip) == length:
            score(clip)
            windows, clip = windows + 1, []
    seconds = time.perf_counter() - start

    start = time.perf_counter()
    for _ in frames(video, threads):
        pass
    decode = time.perf_counter() - start
    print(json.dumps({"windows": windows, "seconds": seconds, "decode": decode, **times}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
