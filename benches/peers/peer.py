"""One peer, timed in turns with others: the line protocol of `xclipd bench --interactive`.

python benches/peers/peer.py NAME FOLDER THREADS      (FOLDER as benches/peers/export.py leaves it)

First line out: {"backend": …}. For each line `window` or `text` on stdin one line {"ms": …, "logits": …}.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


class Torch:
    def __init__(self, folder, threads, compiled):
        import torch

        import checkpoint

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch, (window, text) = torch, checkpoint.modules(folder)
        self.name = f"torch {torch.__version__}"
        if compiled:
            import torch._inductor.config

            # Weights are constants here, as they are for every other peer.
            torch._inductor.config.freezing = True
            window, text = torch.compile(window), torch.compile(text)
        self.run = {"window": window, "text": text}

    def bind(self, *inputs):
        return [self.torch.from_numpy(x) for x in inputs]

    def __call__(self, what, inputs):
        return self.run[what](*inputs).numpy()


class OnnxRuntime:
    def __init__(self, folder, threads, int8):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        ending = ".int8.onnx" if int8 else ".onnx"
        self.run = {
            what: onnxruntime.InferenceSession(str(folder / (what + ending)), options,
                                               providers=["CPUExecutionProvider"])
            for what in ("window", "text")
        }
        self.name = f"onnxruntime {onnxruntime.__version__}"

    def bind(self, *inputs):
        return inputs

    def __call__(self, what, inputs):
        session = self.run[what]
        return session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs)))[0]


class OpenVino:
    def __init__(self, folder, threads, settings):
        import openvino

        core, settings = openvino.Core(), {"INFERENCE_NUM_THREADS": threads, **settings}
        self.run = {
            what: core.compile_model(str(folder / f"{what}.onnx"), "CPU", settings)
            for what in ("window", "text")
        }
        precision = self.run["window"].get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.name = f"openvino {openvino.__version__.split('-')[0]}, {precision}"

    def bind(self, *inputs):
        return inputs

    def __call__(self, what, inputs):
        return next(iter(self.run[what](list(inputs)).values()))


PEERS = {
    "torch eager f32": lambda folder, threads: Torch(folder, threads, compiled=False),
    "torch.compile f32": lambda folder, threads: Torch(folder, threads, compiled=True),
    "ONNX Runtime f32": lambda folder, threads: OnnxRuntime(folder, threads, int8=False),
    "ONNX Runtime int8 dynamic": lambda folder, threads: OnnxRuntime(folder, threads, int8=True),
    "OpenVINO f32": lambda folder, threads: OpenVino(
        folder, threads, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}),
    "OpenVINO default": lambda folder, threads: OpenVino(folder, threads, {}),
}


def main(name, folder, threads):
    start = time.perf_counter()
    peer = PEERS[name](folder, threads)
    saved = np.load(folder / "input.npz")
    inputs = {
        "window": peer.bind(saved["pixels"], saved["features"]),
        "text": peer.bind(saved["ids"]),
    }
    for what in inputs:
        for _ in range(2):
            peer(what, inputs[what])
    print(json.dumps({"backend": peer.name, "load_ms": 1e3 * (time.perf_counter() - start)}), flush=True)
    for line in sys.stdin:
        what = line.strip()
        start = time.perf_counter()
        out = peer(what, inputs[what])
        took = 1e3 * (time.perf_counter() - start)
        logits = out[0].tolist() if what == "window" else None
        print(json.dumps({"ms": took, "logits": logits}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
