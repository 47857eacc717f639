"""Measures a model on seeds never used in training.

    python training/evaluate.py models/demo                # clips and streams
    python training/evaluate.py RUN --clips 1000 --streams 0
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import XCLIPModel

import tokenizer as words
from encoder import recode
from losses import EMPTY, background
from model import IMAGE, Net, config, pixels
from stream import Clips, play

CLIP_SEED = 3_000_000_000
SCRIPT_SEED = 3_000_000
BACKGROUND = ["a person", "someone doing something else", "something else is happening", "a scene"]
# Five labels each; every action is in one of them.
LABEL_SETS = [
    ["walking", "falling down", "waving", "climbing a fence", "two people fighting"],
    ["running", "lying on the ground", "carrying a box", "kicking", "hugging"],
    ["standing", "jumping", "sitting down", "dribbling a ball", "shaking hands"],
    ["crouching", "throwing", "raising both arms", "dancing", "an empty scene"],
]


class Model:
    """A model folder or a training run, ready to score frames."""

    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.net = Net(config(self.tokenizer.get_vocab_size()))
        if (folder / "model.safetensors").exists():
            self.net.xclip = XCLIPModel.from_pretrained(folder).float()
        else:
            self.net.load_state_dict(torch.load(folder / "checkpoint.pt", map_location="cpu")["net"])
        self.net.eval()

    @torch.no_grad()
    def text(self, texts):
        return self.net.text(words.encode(self.tokenizer, texts))

    @torch.no_grad()
    def logits(self, frames, text, chunk=24):
        """uint8 frames (N, T, S, S, 3) and text vectors (K, E) -> (N, K)."""
        rows = []
        for start in range(0, len(frames), chunk):
            video, patches, _, _ = self.net.video(pixels(frames[start : start + chunk]))
            rows.append(self.net.logits(video, patches, text))
        return torch.cat(rows)


def clips(model, count, hardness, seed, encoded=False):
    """Top-1 over the 20 labels and over held-out phrasings, and what the open score says. With two people, either
    action is right. `encoded`: every clip passes through an H.264 encoder first."""
    stream = Clips(seed=seed, hardness=hardness, mixed=0.0)
    header = stream.header
    batch = stream.batch(count)
    stream.close()
    if encoded:
        choice = random.Random(seed)
        batch.frames = np.stack([recode(frames, choice) for frames in batch.frames])
    truth = torch.tensor([clip["action"] for clip in batch.clips])
    other = torch.tensor([-1 if clip["other"] is None else clip["other"] for clip in batch.clips])
    first, second = zip(*header["held_out_phrasings"])
    text = model.text([*header["labels"], *first, *second, *BACKGROUND])
    logits = model.logits(batch.frames, text)
    labels, first, second, others = logits.split([20, 20, 20, len(BACKGROUND)], 1)
    best = labels.argmax(1)
    p = (labels - background(others)).sigmoid()
    present = torch.nn.functional.one_hot(truth, 20).bool()
    present[other >= 0] |= torch.nn.functional.one_hot(other[other >= 0], 20).bool()

    def right(choices):
        return ((choices == truth) | (choices == other)).float().mean().item()

    report = {
        "clips": count,
        "top1": right(best),
        "top5": present.gather(1, labels.topk(5, 1).indices).any(1).float().mean().item(),
        "top1_held_out_phrasings": [right(first.argmax(1)), right(second.argmax(1))],
        "present_over_0.6": (p[present] > 0.6).float().mean().item(),
        "absent_under_0.4": (p[~present] < 0.4).float().mean().item(),
    }
    per_action = {}
    for i, label in enumerate(header["labels"]):
        mine = truth == i
        if not mine.any():
            continue
        taken = torch.bincount(best[mine], minlength=20)
        wrong = {header["labels"][j]: int(n) for j, n in enumerate(taken) if n and j != i}
        per_action[label] = {
            "recall": round((best[mine] == i).float().mean().item(), 2),
            "p": round(p[mine, i].median().item(), 2),
            "n": int(mine.sum()),
            "taken_for": dict(sorted(wrong.items(), key=lambda item: -item[1])[:3]),
        }
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in report.items()}, per_action


def shrink(pictures):
    """The reference preprocessing of larger streams: short side to 96, bilinear, centre crop."""
    if pictures.shape[1:3] == (IMAGE, IMAGE):
        return pictures
    out = []
    for picture in pictures:
        image = Image.fromarray(picture)
        scale = IMAGE / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - IMAGE) // 2, (height - IMAGE) // 2
        out.append(np.asarray(image)[top : top + IMAGE, left : left + IMAGE])
    return np.stack(out)


def events(p, starts, length, onset, offset, smoothing):
    """Events of one label from its scores (W) of windows beginning at `starts`: (start, end, detected)."""
    found, open_since, value = [], None, None
    for score, start in zip(p, starts):
        value = score if value is None else value + (score - value) * smoothing
        middle = start + length / 2
        if open_since is None and value >= onset:
            open_since = (middle, start + length)
        elif open_since is not None and value < offset:
            found.append((open_since[0], middle, open_since[1]))
            open_since = None
    if open_since is not None:
        found.append((open_since[0], starts[-1] + length, open_since[1]))
    return found


def compare(found, truth, least=0.3):
    """Greedy pairing of events and truth of one label by IoU: (pairs, delays)."""
    pairs = []
    for i, (start, end, _) in enumerate(found):
        for j, (from_, to) in enumerate(truth):
            both = max(0.0, min(end, to) - max(start, from_))
            union = max(end, to) - min(start, from_)
            if both > least * union:
                pairs.append((both / union, i, j))
    used_found, used_truth, delays = set(), set(), []
    for _, i, j in sorted(pairs, reverse=True):
        if i not in used_found and j not in used_truth:
            used_found.add(i)
            used_truth.add(j)
            delays.append(found[i][2] - truth[j][0])
    return used_found, used_truth, delays


def streams(model, count, seconds, look, height, seed=SCRIPT_SEED, others=0, onset=0.6, offset=0.4, smoothing=1.0, hop=2, rate=4.0):
    """Event precision and recall of five labels on scripted streams, competition=background. `others` actions
    beyond the five labels happen too."""
    hits = found_count = truth_count = 0
    delays, missed, invented = [], {}, {}
    everything = sum(LABEL_SETS, [])
    for i in range(count):
        labels = LABEL_SETS[i % len(LABEL_SETS)]
        rest = [label for label in everything if label not in labels and label != "an empty scene"]
        played = labels + [rest[(7 * i + k) % len(rest)] for k in range(others)]
        played = [label for label in played if label not in ("an empty scene", "standing")] if not others else played
        script = json.dumps(
            {"seed": seed + i, "duration": seconds, "look": look, "random": played}
        )
        pictures, header = play(script, height, height * 4 // 3 if height > IMAGE else height, rate)
        pictures = shrink(pictures)
        starts = list(range(0, len(pictures) - 7, hop))
        windows = np.stack([pictures[s : s + 8] for s in starts])
        logits = model.logits(windows, model.text(labels + BACKGROUND))
        p = (logits[:, :5] - background(logits[:, 5:])).sigmoid().numpy()
        for k, label in enumerate(labels):
            truth = [(t["start"], t["end"]) for t in header["truth"] if t["label"] == label]
            mine = events(p[:, k], [s / rate for s in starts], 7 / rate, onset, offset, smoothing)
            used, hit, late = compare(mine, truth)
            hits += len(used)
            found_count += len(mine)
            truth_count += len(truth)
            delays += late
            if len(hit) < len(truth):
                missed[label] = missed.get(label, 0) + len(truth) - len(hit)
            for j, event in enumerate(mine):
                if j in used:
                    continue
                middle = (event[0] + event[1]) / 2
                during = [t["label"] for t in header["truth"] if t["start"] <= middle < t["end"]]
                key = f"{label} during {during[0] if during else 'nothing'}"
                invented[key] = invented.get(key, 0) + 1
    report = {
        "streams": count, "seconds": seconds, "look": look, "height": height, "unlisted_actions": others,
        "onset": onset, "smoothing": smoothing, "events": truth_count,
        "precision": round(hits / max(1, found_count), 3), "recall": round(hits / max(1, truth_count), 3),
        "start_delay_median": round(float(np.median(delays)), 2) if delays else None,
    }
    return report, missed, dict(sorted(invented.items(), key=lambda item: -item[1])[:12])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--clips", type=int, default=1000)
    p.add_argument("--streams", type=int, default=8)
    p.add_argument("--seconds", type=float, default=120)
    p.add_argument("--height", type=int, default=IMAGE, help="of the streams; wider than high above 96")
    p.add_argument("--seed", type=int, default=CLIP_SEED)
    p.add_argument("--script-seed", type=int, default=SCRIPT_SEED)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--verbose", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    model = Model(a.model)
    if a.clips:
        for name, hardness, encoded in (("plain", 0.0, False), ("whole world", 1.0, False), ("encoded", 1.0, True)):
            report, per_action = clips(model, a.clips, hardness, a.seed, encoded)
            print(name, json.dumps(report))
            if a.verbose:
                for label, row in per_action.items():
                    print(f"  {label:20} {json.dumps(row)}")
    if a.streams:
        for look, others in (("plain", 0), ("plain", 3), ("busy", 0)):
            report, missed, invented = streams(model, a.streams, a.seconds, look, a.height, a.script_seed, others)
            print(json.dumps(report))
            if a.verbose:
                print("  missed", missed)
                print("  invented", invented)


if __name__ == "__main__":
    main()
