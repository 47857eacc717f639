"""Writes what the peers run, once per checkpoint: input.npz, window.onnx, text.onnx and both at int8.

python benches/peers/export.py FOLDER        (a checkpoint with prompts.json, a list of token id lists)
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

import checkpoint


def export(module, inputs, names, path):
    torch.onnx.export(module, inputs, str(path), input_names=names, output_names=["out"], dynamo=False,
                      opset_version=17)
    # Weights symmetric per output channel, activations per tensor at run time: the recipe of
    # onnxruntime's documentation for transformers.
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(path), str(prepared))
    quantize_dynamic(str(prepared), str(path.with_suffix(".int8.onnx")), per_channel=True,
                     weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    prepared.unlink()


def main(folder):
    warnings.filterwarnings("ignore")
    torch.set_grad_enabled(False)
    window, text = checkpoint.modules(folder)
    ids = torch.tensor(json.loads((folder / "prompts.json").read_text()))
    pixels = torch.from_numpy(checkpoint.pixels(folder))
    features = text(ids)
    export(text, (ids,), ["ids"], folder / "text.onnx")
    export(window, (pixels, features), ["pixels", "features"], folder / "window.onnx")
    np.savez(folder / "input.npz", pixels=pixels.numpy(), ids=ids.numpy(), features=features.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
