"""A generated checkpoint as transformers sees it: the model, the input, and what is timed of it.

The input is the one of `xclipd bench`: the recipe's moving picture and the prompts it names itself.
"""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/golden"))
import gen_golden  # noqa: E402

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pixels(folder):
    """[1, T, 3, S, S] f32, resized, cropped and normalised already."""
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    frames, side = vision["num_frames"], vision["image_size"]
    picture = gen_golden.frames_u8(frames, side, side, 2).astype(np.float32) / np.float32(255)
    picture = (picture - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(picture.transpose(0, 3, 1, 2))[None]


def load(folder):
    from transformers import XCLIPModel

    return XCLIPModel.from_pretrained(folder).eval()


def modules(folder):
    """(pixels, text features → logits; token ids → text features), both from one checkpoint.

    The first is XCLIPModel's own forward with the text tower replaced by its cached result, as a program
    does that watches for the same labels all the time.
    """
    import torch

    class Cached(torch.nn.Module):
        def forward(self, input_ids=None, **_):
            return None, input_ids

    class Window(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            model.text_model, model.text_projection = Cached(), torch.nn.Identity()
            self.model = model

        def forward(self, pixel_values, text_features):
            return self.model(input_ids=text_features, pixel_values=pixel_values).logits_per_video

    class Text(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.tower, self.projection = model.text_model, model.text_projection

        def forward(self, input_ids):
            return self.projection(self.tower(input_ids=input_ids).pooler_output)

    model = load(folder)
    text = Text(model)
    return Window(model), text
