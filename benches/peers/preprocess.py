"""Times Hugging Face's processor on the frame sizes of benches/preprocess.rs.

python benches/peers/preprocess.py        (torch, torchvision, transformers >= 5)

The processor starts from RGB: a camera's NV12 or I420 would have to be converted first.
"""

import time

import numpy as np
import torch
from transformers import VideoMAEImageProcessor


def best(function, runs=30):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    torch.set_num_threads(1)
    for width, height, size in [(1920, 1080, 224), (1920, 1080, 96), (640, 480, 96)]:
        processor = VideoMAEImageProcessor(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
        rows, columns = np.mgrid[:height, :width]
        frame = (125 + 25 * np.sin(columns * 0.03 + rows * 0.02)).astype(np.uint8)
        frame = np.repeat(frame[:, :, None], 3, axis=2)
        seconds = best(lambda: processor([frame], return_tensors="pt"))
        tensor = torch.from_numpy(frame).permute(2, 0, 1).contiguous()
        bare = best(lambda: processor([tensor], return_tensors="pt"))
        print(f"reduce/Rgb-{width}x{height}-{size}: {1e6 * seconds:.0f} us, "
              f"{1e6 * bare:.0f} us from a planar tensor (best of 30, one thread)")


if __name__ == "__main__":
    main()
