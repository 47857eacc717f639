"""Times us and PyTorch on one NVIDIA GPU: the same generated weights, pictures and label vectors, in one run.

python benches/peers/gpu.py --xclipd PATH --work FOLDER [--model base-patch32] [--windows 1] … [--json FILE]

Ours before and after theirs, so that a clock that drifts shows. Per batch of windows: normalised pixels on the GPU in,
logits out, the label vectors made before. Theirs is XCLIPModel in f16, as it comes and by torch.compile with max-autotune
and CUDA graphs; times are by CUDA events, medians over several input sets. Every one's logits are held against
XCLIPModel's in f32: theirs are flagged where they are off, ours end in status 1 after the last row. What fails has no
figure, and its reason in the row. FILE holds the rows so far. Needs torch with CUDA and transformers. --rehearse runs
theirs on the processor, in f32, to try the script without a GPU; it prints no figures of use.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import checkpoint

SETS = 3
# One for the allocator, one that captures, one that replays for the first time; per set.
WARM_UP = 3 * SETS
# f16 moves a logit of order 1 to 20 by less, and turns the vector of all of them by less; another function would
# do more of either.
AGREEMENT, COSINE = 0.05, 0.999
OURS, EAGER, COMPILED = "ours", "torch eager f16", "torch.compile f16"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--xclipd", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and compiled kernels go here, and stay")
    parser.add_argument("--model", action="append", help="published name, config.json or a checkpoint in the work "
                                                         "folder; may be repeated; default base-patch32, base-patch16")
    parser.add_argument("--windows", type=int, action="append", help="of a batch; may be repeated; default 1, 8, 64")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--device", default="cuda:0", help="of ours")
    parser.add_argument("--json", type=Path, help="the rows, written after each; default gpu.json in the work folder")
    parser.add_argument("--rehearse", action="store_true")
    return parser.parse_args()


def said(command):
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if run.returncode != 0:
        lines = run.stderr.strip().splitlines() or ["nothing on stderr"]
        raise RuntimeError(f"{lines[-1]} (status {run.returncode} of {' '.join(map(str, command))})\n{run.stderr[-4000:]}")
    return run.stdout


def generated(asked, model):
    """The checkpoint's folder. One that was begun and not finished has another name."""
    folder = asked.work / (Path(model).parent.name if model.endswith(".json") else model)
    if not (folder / "model.safetensors").exists():
        begun = folder.with_name(folder.name + ".begun")
        said([asked.xclipd, "generate-weights", model, begun])
        begun.rename(folder)
    return folder


def prompts(xclipd, folder):
    """Token ids of the labels that `xclipd bench` takes."""
    command = [str(xclipd), "bench", "--model", str(folder), "--device", "cpu", "--precision", "f32", "--interactive"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        hello = process.stdout.readline()
        process.stdin.close()
        process.stdout.read()
    if not hello:
        sys.exit(f"error: {' '.join(command)} said nothing")
    return json.loads(hello)["prompts"]


def ours(asked, folder, windows):
    report = json.loads(said([asked.xclipd, "bench", "--model", folder, "--device", asked.device, "--windows", windows,
                              "--rounds", asked.rounds, "--json"]))
    row = next(row for row in report["stages"] if row["stage"] == "windows, all frames new")
    return {"ms": row["device_ms"]["median"], "of_product": row["of_product"], "logits": report["logits"],
            "backend": report["backend"], "launches": report["launches_per_batch"]}


def pixels(folder, windows, number):
    """Input set `number`: [N, T, 3, S, S] f32, as ours makes it of the same bytes."""
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    frames, side = vision["num_frames"], vision["image_size"]
    picture = checkpoint.gen_golden.frames_u8(windows * frames, side, side, 2 + number).astype(np.float32)
    picture = (picture / np.float32(255) - np.float32(checkpoint.MEAN)) / np.float32(checkpoint.STD)
    shaped = picture.transpose(0, 3, 1, 2).reshape(windows, frames, 3, side, side)
    return torch.from_numpy(np.ascontiguousarray(shaped))


class Clock:
    """Milliseconds on the device between two marks of its queue, or of the processor in a rehearsal."""

    def __init__(self, gpu):
        self.gpu = gpu

    def time(self, work):
        if not self.gpu:
            start = time.perf_counter()
            out = work()
            return out, 1e3 * (time.perf_counter() - start)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        out = work()
        end.record()
        end.synchronize()
        return out, begin.elapsed_time(end)


def theirs(window, sets, features, rounds, clock):
    times, first = [], None
    for number in range(WARM_UP + rounds):
        which = number % SETS
        out, took = clock.time(lambda: window(sets[which], features))
        if number == 0:
            # A later call overwrites what a graph returned.
            first = out[0].float().cpu().tolist()
        if number >= WARM_UP:
            times.append(took)
    return {"ms": statistics.median(times), "logits": first}


def tried(work):
    """Figures, or why there are none: another's compiler that fails is no reason to lose the row."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        lines = str(error).strip().splitlines() or [""]
        return {"failed": f"{type(error).__name__}: {lines[0]}"[:200].replace('"', "'").replace("|", "/")}


def judged(result, exact):
    """Adds how far the logits are off, and whether that is more than f16."""
    if "failed" in result:
        return
    found = np.array(result["logits"])
    result["logit_error"] = float(np.abs(found - exact).max())
    result["cosine"] = float(found @ exact / np.linalg.norm(found) / np.linalg.norm(exact))
    # NaN is off.
    result["off"] = not (result["logit_error"] < AGREEMENT and result["cosine"] > COSINE)


def measure(asked, model, windows):
    folder, gpu = generated(asked, model), not asked.rehearse
    device, kind = ("cuda", torch.float16) if gpu else ("cpu", torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    ids = torch.tensor(prompts(asked.xclipd, folder), device=device)
    reference, text = checkpoint.modules(folder)
    features = text.to(device)(ids)
    first = pixels(folder, windows, 0)
    exact = np.array(reference.to(device)(first[:1].to(device), features)[0].cpu().tolist())

    results = {OURS: tried(lambda: ours(asked, folder, windows))}
    window, clock = reference.to(device, kind), Clock(gpu)
    sets = [pixels(folder, windows, number).to(device, kind) for number in range(SETS)]
    features = features.to(kind)
    results[EAGER] = tried(lambda: theirs(window, sets, features, asked.rounds, clock))
    compiled = torch.compile(window, mode="max-autotune", dynamic=False)
    results[COMPILED] = tried(lambda: theirs(compiled, sets, features, asked.rounds, clock))
    torch._dynamo.reset()
    again = tried(lambda: ours(asked, folder, windows))
    # The slower of our two runs counts.
    if "failed" in again or again["ms"] > results[OURS].get("ms", np.inf):
        results[OURS] = again
    for result in results.values():
        judged(result, exact)
    return results


def row(model, windows, results):
    """What is written of a row: figures first, None where there is none."""
    own, eager, compiled = (results[name].get("ms") for name in (OURS, EAGER, COMPILED))
    notes = []
    for name, result in results.items():
        if "failed" in result:
            notes.append(f"{name} failed: {result['failed']}")
        elif result["off"]:
            notes.append(f"{name} is OFF: logits by {result['logit_error']:.3g}, cosine {result['cosine']:.6f}")
    return {"model": model, "windows": windows, "ours_ms": own, "eager_ms": eager, "compile_ms": compiled,
            "ratio": own / compiled if own and compiled else None, "torch": torch.__version__,
            "notes": "; ".join(notes), "results": results}


def cells(made):
    def shown(value, form=".3f"):
        return "" if value is None else format(value, form)

    own = made["results"][OURS]
    off = ", ".join(shown(result.get("logit_error"), ".1e") + (" OFF" if result.get("off") else "")
                    for result in made["results"].values())
    figures = [shown(made[key]) for key in ("ours_ms", "eager_ms", "compile_ms")]
    return [made["model"], made["windows"], *figures, shown(made["ratio"], ".2f"), shown(own.get("of_product"), ".2f"),
            own.get("launches", ""), off, made["notes"]]


def main():
    asked = arguments()
    if not asked.rehearse and not torch.cuda.is_available():
        sys.exit("error: this torch sees no GPU; --rehearse tries the script without one")
    # Tuning takes minutes, and is the same the next time.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(asked.work / "inductor"))
    torch.set_grad_enabled(False)
    models, sizes = asked.model or ["base-patch32", "base-patch16"], asked.windows or [1, 8, 64]
    name = torch.cuda.get_device_name() if not asked.rehearse else "REHEARSAL: these times say nothing about any GPU"
    print(f"{name}; torch {torch.__version__}, {asked.rounds} rounds over {SETS} input sets")
    print("| model | windows | ours, ms | torch eager f16 | torch.compile f16 | ours ÷ compile | of product peak | "
          "launches | logits off f32: ours, eager, compile | notes |")
    print("|" + "---|" * 10)
    rows = []
    for model in models:
        for windows in sizes:
            made = row(model, windows, measure(asked, model, windows))
            print("| " + " | ".join(map(str, cells(made))) + " |", flush=True)
            rows.append(made)
            (asked.json or asked.work / "gpu.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    wrong = [f"{made['model']}, {made['windows']} windows" for made in rows
             if "failed" in made["results"][OURS] or made["results"][OURS]["off"]]
    if wrong:
        sys.exit(f"error: ours failed or is more than {AGREEMENT} off XCLIPModel's f32 logits, or its cosine less than "
                 f"{COSINE}: {'; '.join(wrong)}; see the notes")


if __name__ == "__main__":
    main()
