"""Times us and the alternatives on this machine, in turns, and writes benches/RESULTS.md once every part is measured.

scripts/bench_peers.sh [--quick] [--model base-patch32] [--part windows] …      (or: make bench-peers)
"""

import argparse
import json
import os
from pathlib import Path

import pipeline
import preprocess
import report
import turns

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["windows", "load", "pipeline", "preprocess"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=["base-patch32", "base-patch16"],
                        help="may be repeated; default both")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default all")
    parser.add_argument("--precision", action="append", help="of ours; may be repeated; default f32 and int8")
    parser.add_argument("--peer", action="append", choices=turns.PEERS, help="may be repeated; default all")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each; default all cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="only check that everything runs; RESULTS.md stays")
    parser.add_argument("--xclipd", type=Path, default=ROOT / "target/release/xclipd")
    parser.add_argument("--work", type=Path, default=ROOT / "target/peers")
    return parser.parse_args()


def main():
    asked = arguments()
    models = asked.model or ["base-patch32", "base-patch16"]
    precisions = asked.precision or ["f32", "int8"]
    parts = asked.part or PARTS
    rounds = 1 if asked.quick else asked.rounds
    work = asked.work / "quick" if asked.quick else asked.work
    work.mkdir(parents=True, exist_ok=True)

    def save(name, figures):
        figures |= report.stamp(asked.threads)
        (work / f"{name}.json").write_text(json.dumps(figures, indent=1))

    for model in models:
        folder = asked.work / model
        folder.mkdir(parents=True, exist_ok=True)
        turns.prepare(asked.xclipd, folder, model)
        if "windows" in parts:
            print(f"{model}: windows in turns", flush=True)
            save(f"windows-{model}", {"results": turns.measure(
                asked.xclipd, folder, asked.threads, rounds, precisions, asked.peer or turns.PEERS)})
        if "load" in parts:
            print(f"{model}: load and memory", flush=True)
            save(f"load-{model}", {"results": turns.load(
                asked.xclipd, folder, asked.threads, precisions + ["auto"], 1 if asked.quick else 5)})
        if "pipeline" in parts:
            print(f"{model}: a file in 1080p", flush=True)
            windows = 3 if asked.quick else 16
            save(f"pipeline-{model}", pipeline.measure(
                asked.xclipd, asked.work, folder, asked.threads, precisions, 1 if asked.quick else 3, windows))
    if "preprocess" in parts:
        print("preprocessing of a 1080p frame", flush=True)
        save("preprocess", preprocess.measure(1 if asked.quick else 3))
    whole = not (asked.quick or asked.model or asked.part or asked.precision or asked.peer) and rounds >= 15
    results = ROOT / "benches/RESULTS.md" if whole else work / "RESULTS.md"
    print(f"figures in {report.write(work, results)}")


if __name__ == "__main__":
    main()
