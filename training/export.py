"""Writes a training run as a model folder in the Hugging Face layout: python training/export.py RUN models/demo"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from evaluate import BACKGROUND
from model import IMAGE, MEAN, STD, Net, config
from tokenizers import Tokenizer

PREPROCESSOR = {
    "image_processor_type": "VideoMAEImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": IMAGE},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": IMAGE, "width": IMAGE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}
# What the Hugging Face layout lacks. The sample rate is the one the clips were drawn at.
XCLIP = {
    "sample_rate": "4/1",
    "resize": "checkpoint",
    "temperature": 1.0,
    "background": BACKGROUND,
}


def export(run, folder):
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = Tokenizer.from_file(str(run / "tokenizer.json")).get_vocab_size()
    net = Net(config(vocabulary))
    net.load_state_dict(torch.load(run / "checkpoint.pt", map_location="cpu")["net"])
    weights = {name: value.half().contiguous() for name, value in net.xclip.state_dict().items()
               if value.is_floating_point()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    net.config.architectures = ["XCLIPModel"]
    net.config.dtype = "float16"
    net.config.save_pretrained(folder)
    for name, content in (("preprocessor_config.json", PREPROCESSOR), ("xclip.json", XCLIP)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    shutil.copy(run / "tokenizer.json", folder / "tokenizer.json")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("run", type=Path)
    p.add_argument("folder", type=Path)
    a = p.parse_args()
    export(a.run, a.folder)
