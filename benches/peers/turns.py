"""Processes that are timed in turns: A B C … A B C …, so that a slow minute of the machine hits all alike."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
PEERS = ["torch eager f32", "torch.compile f32", "ONNX Runtime f32", "ONNX Runtime int8 dynamic", "OpenVINO f32",
         "OpenVINO default"]
# How far logits of about 20 may be off torch's in f32: more is another function, not another rounding.
OFF = {"xclip int8": 0.05, "xclip auto": 0.05, "ONNX Runtime int8 dynamic": 0.1, "OpenVINO default": 0.3}
OFF_F32 = 1e-3
# Threads of the last one spin for a few milliseconds when it has answered.
PAUSE = 0.1


class Process:
    """One that speaks the line protocol of `xclipd bench --interactive`."""

    def __init__(self, name, command, threads):
        self.name, self.times, self.answer = name, {}, None
        self.log = tempfile.TemporaryFile("w+")
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=self.log, env=environment)
        self.hello = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            sys.exit(f"error: {self.name} ended with status {self.process.wait()}:\n{self.log.read()[-4000:]}")
        return json.loads(line)

    def ask(self, what):
        time.sleep(PAUSE)
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = self.read()
        self.times.setdefault(what, []).append(answer["ms"])
        if answer["logits"] is not None:
            self.answer = answer["logits"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours(xclipd, folder, precision, threads):
    command = [str(xclipd), "bench", "--model", str(folder), "--precision", precision, "--threads", str(threads),
               "--interactive"]
    return Process(f"xclip {precision}", command, threads)


def prepare(xclipd, folder, name):
    """A generated checkpoint with all that the peers run; kept while the scripts and versions are the same."""
    made_by = (HERE / "export.py").read_text() + (HERE / "requirements.txt").read_text()
    made = folder / "made-by"
    if made.exists() and made.read_text() == made_by:
        return
    print(f"writing the checkpoint {folder} and its ONNX exports", flush=True)
    made.unlink(missing_ok=True)
    subprocess.run([xclipd, "generate-weights", name, folder], check=True)
    process = ours(xclipd, folder, "f32", 0)
    (folder / "prompts.json").write_text(json.dumps(process.hello["prompts"]))
    process.close()
    subprocess.run([sys.executable, HERE / "export.py", folder], check=True)
    made.write_text(made_by)


def measure(xclipd, folder, threads, rounds, precisions, peers):
    """Every process's times in ms by request, and its logits."""
    processes = []
    for precision in precisions:
        processes.append(ours(xclipd, folder, precision, threads))
    for peer in peers:
        print(f"starting {peer}", flush=True)
        command = [sys.executable, str(HERE / "peer.py"), peer, str(folder), str(threads)]
        processes.append(Process(peer, command, threads))
    def turns(who, *requests):
        """Times by process and request; the first turn, after the others took the caches, is not timed."""
        for process in processes:
            process.times = {}
        for _ in range(rounds + 1):
            for process in who:
                for request in requests:
                    process.ask(request)
        return {p.name: {request: p.times[request][1:] for request in requests} for p in who}

    windows, texts = turns(processes, "window"), turns(processes, "text")
    hops = turns(processes[:len(precisions)], "window", "hop")
    results = []
    for process in processes:
        process.close()
        times = {**windows[process.name], **texts[process.name]}
        if process.name in hops:
            times |= {"window beside hop": hops[process.name]["window"], "hop": hops[process.name]["hop"]}
        results.append({"name": process.name, "backend": process.hello["backend"], "times": times,
                        "logits": process.answer})
    reference = next((r for r in results if r["name"] == "torch eager f32"), results[0])
    for result in results:
        error = np.abs(np.array(result["logits"]) - np.array(reference["logits"])).max()
        result["logit_error"] = float(error)
        most = max(OFF.get(r["name"], OFF_F32) for r in (result, reference))
        if not error < most:
            sys.exit(f"error: {result['name']} is {error} off {reference['name']}'s logits; expected less than {most}")
    return results


def load(xclipd, folder, threads, precisions, rounds):
    """Load time and memory of fresh processes, the page cache warm."""
    results = []
    for precision in precisions:
        command = [xclipd, "bench", "--model", folder, "--precision", precision, "--threads", str(threads),
                   "--rounds", "1", "--json"]
        runs = []
        for _ in range(rounds + 1):
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs.append(json.loads(said)["runs"][0])
        runs = runs[1:]
        memory = runs[0]["memory"] or {"resident_mb": None, "peak_mb": None}
        results.append({"name": f"xclip {precision}", "load_ms": [r["load_ms"] for r in runs],
                        "parameters_mb": runs[0]["parameters_mb"], **memory})
    return results


def median(result, what):
    return statistics.median(result["times"][what])
