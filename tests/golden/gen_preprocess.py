"""Writes preprocess.safetensors: noise pictures and what Hugging Face's processor makes of them.

python tests/golden/gen_preprocess.py        (torch, torchvision, transformers >= 5, safetensors)

Keys: WIDTHxHEIGHT_SHORT_SIZE.picture [H, W, 3] u8 and .levels [S, S, 3] u8 (normalisation undone,
which is exact after rounding). Upsizing, steep downsizing, tall, wide, odd and one-pixel pictures.
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import VideoMAEImageProcessor

CASES = [
    (31, 20, 48, 48),
    (50, 171, 32, 28),
    (171, 50, 32, 28),
    (7, 5, 16, 16),
    (1, 1, 8, 8),
    (3, 1, 8, 8),
    (64, 64, 64, 64),
    (301, 233, 12, 12),
    (97, 203, 37, 32),
]


def main():
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for width, height, short, size in CASES:
        picture = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        processor = VideoMAEImageProcessor(
            size={"shortest_edge": short},
            crop_size={"height": size, "width": size},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        )
        pixels = processor([picture.numpy()], return_tensors="pt", input_data_format="channels_last")
        levels = ((pixels["pixel_values"].reshape(3, size, size) * 0.5 + 0.5) * 255).round()
        name = f"{width}x{height}_{short}_{size}"
        tensors[f"{name}.picture"] = picture
        tensors[f"{name}.levels"] = levels.to(torch.uint8).permute(1, 2, 0).contiguous()
    save_file(tensors, pathlib.Path(__file__).with_name("preprocess.safetensors"))


if __name__ == "__main__":
    main()
