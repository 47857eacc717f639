"""Trains the demo model on the drawn world.

    cargo build --release --no-default-features
    python training/train.py --out RUN --clips 200000

Writes RUN/{tokenizer.json,checkpoint.pt,train.log} and goes on from a checkpoint it finds there. With --warm OTHER it
begins with the weights of another run.
"""

import argparse
import json
import os
import queue
import random
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from tokenizers import Tokenizer

import losses
import tokenizer as words
import variants
from model import Net, config, initialise, pixels
from encoder import recode
from stream import Batch, Clips

# Of the clips of a batch, so many are mirrored or reversed twins.
MIRRORED, REVERSED = 2, 1


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--clips", type=int, default=200_000, help="length of the schedule")
    p.add_argument("--minutes", type=float, default=1e9, help="length of the schedule in time, if that ends first")
    p.add_argument("--batch", type=int, default=12, help="clips per process and step")
    p.add_argument("--processes", type=int, default=2, help="one thread each")
    p.add_argument("--rate", type=float, default=5e-4)
    p.add_argument("--decay", type=float, default=0.4, help="share of the schedule over which the rate falls to 0")
    p.add_argument("--seed", type=int, default=0, help="first clip; 0 to 10^9 are for training")
    p.add_argument("--warm", type=Path, help="run whose weights to begin with")
    p.add_argument("--encoded", type=float, default=0.12, help="share of clips that pass through an H.264 encoder")
    p.add_argument("--hardness", type=float, nargs=2, default=(0.1, 0.15), help="share of busy scenes, first and last")
    return p.parse_args()


class Practice:
    """Draws what is not yet known more often: an action recognised always is taken a third as often as one
    recognised never."""

    def __init__(self, recall=None):
        self.recall = recall or [0.5] * 20

    def wants(self, clip, choice):
        return choice.random() < min(1.0, max(0.35, 1.15 - self.recall[clip["action"]]))

    def note(self, actions, hits):
        for action, hit in zip(actions.tolist(), hits.tolist()):
            if action < len(self.recall):
                self.recall[action] += 0.03 * (hit - self.recall[action])


def gather(clips, count, encoded, practice, choice):
    """A batch of `count` clips, some of them twins of others, some encoded."""
    def draw(number):
        batch = clips.batch(number, lambda clip: practice.wants(clip, choice))
        return [list(row) for row in zip(batch.frames, batch.joints, batch.clips)]

    rows = draw(count - MIRRORED - REVERSED)
    directed = [i for i, row in enumerate(rows) if row[2]["direction"] is not None][:MIRRORED]
    ordered = [i for i, row in enumerate(rows) if variants.can_reverse(row[2], clips.header)][:REVERSED]
    # No twins to be had: more clips instead.
    rows += draw(MIRRORED + REVERSED - len(directed) - len(ordered))
    for row in rows:
        if choice.random() < encoded:
            row[0] = recode(row[0], choice)
    twins = []
    for i in directed:
        twins.append((i, len(rows)))
        rows.append(variants.mirror(*rows[i]))
    for i in ordered:
        twins.append((i, len(rows)))
        rows.append(variants.reverse(*rows[i], clips.header, choice))
    frames, joints, said = zip(*rows)
    return Batch(np.stack(frames), np.stack(joints).astype(np.float32), list(said), twins)


def prefetch(draw):
    """Batches, drawn while the model computes."""
    ready = queue.Queue(3)

    def fill():
        while True:
            ready.put(draw())

    threading.Thread(target=fill, daemon=True).start()
    return ready


def texts(batch, header, choice):
    """The texts of a step: 20 labels, the batch's captions without repeats, one generic one, the background."""
    said = dict(enumerate(choice.choice(batch.clips)["phrasings"]))
    labels = [header["labels"][i] if choice.random() < 0.4 else said[i] for i in range(20)]
    captions = {c["text"]: c for clip in batch.clips for c in clip["captions"]}
    generic = choice.sample(header["generic"], 1 + choice.randint(2, 4))
    return labels, list(captions.values()), generic


def step(net, tokenizer, batch, header, practice, choice):
    labels, captions, generic = texts(batch, header, choice)
    video, patches, cls, tokens = net.video(pixels(batch.frames))
    wearing = choice.choice(["a person in {}", "someone in {}", "a person wearing {}", "a human dressed in {}", "a figure in {}"])
    colours = [wearing.format(colour) for colour in header["colours"]]
    texts_of_twins = [variants.pair_texts(batch.clips[i], batch.clips[j], header, choice) for i, j in batch.twins]
    every = labels + [caption["text"] for caption in captions] + generic + colours + sum(texts_of_twins, [])
    logits = net.logits(video, patches, net.text(words.encode(tokenizer, every)))
    said = 20 + len(captions) + len(generic)
    own, rest = logits[:, :20], logits[:, 20:said]
    twins = [(i, j, said + 8 + 2 * n, said + 9 + 2 * n) for n, (i, j) in enumerate(batch.twins)]
    mirrored = [twin for twin in twins if batch.clips[twin[1]]["action"] < variants.BACKWARDS]
    reversed_ = [twin for twin in twins if batch.clips[twin[1]]["action"] >= variants.BACKWARDS]
    turn, left_right = losses.both_ways(logits, mirrored)
    order, up_down = losses.both_ways(logits, reversed_)
    colour, worn = losses.colours(logits[:, said : said + 8], batch.clips)
    target = losses.presence(batch.clips)
    match = losses.matches(batch.clips, captions)
    action = torch.tensor([clip["action"] for clip in batch.clips])
    other = torch.tensor([-1 if clip["other"] is None else clip["other"] for clip in batch.clips])
    people = (action != losses.EMPTY).float()[:, None]
    count = len(captions) + 1
    pose, patch, attention = losses.figures(net, cls, tokens, batch.joints)
    parts = {
        "closed": losses.labels_closed(own, target),
        "open": losses.labels_open(own, rest[:, count:], target),
        "captions": losses.captions(rest[:, :count], match, people),
        "pose": pose,
        "patch": patch,
        "attention": attention,
        "attributes": losses.attributes(net, video, cls, batch.clips),
        "way": losses.way(net, video, batch.clips, batch.joints),
        "colour": colour,
        "turn": turn,
        "order": order,
    }
    weights = dict(closed=1, open=0.5, captions=1, pose=8, patch=4, attention=0.3, attributes=0.3, way=1, colour=0.5,
                   turn=0.7, order=0.5)
    loss = sum(weights[name] * part for name, part in parts.items())
    with torch.no_grad():
        p = (own - losses.background(rest[:, count:])).sigmoid()
        sure = target == 1
        best = own.argmax(1)
        hits = ((best == action) | (best == other)).float()
        practice.note(action, hits)
        parts["top1"] = hits[action < 20].mean()
        hard = torch.tensor([clip["look"] != "plain" for clip in batch.clips])
        parts["top1_hard"] = hits[hard & (action < 20)].mean()
        parts["left_right"], parts["up_down"], parts["worn"] = left_right, up_down, worn
        parts["hit"] = (p[sure] > 0.6).float().mean() if sure.any() else torch.zeros(())
        parts["false"] = (p[target == 0] > 0.6).float().mean() * 19
    return loss, parts


def share_gradients(net, processes):
    """Replaces each gradient by the mean over the processes."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    if processes > 1:
        dist.all_reduce(flat)
        flat /= processes
    at = 0
    for p in parameters:
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()


def work(rank, a):
    torch.set_num_threads(1)
    # Gradients this small cost a factor of four on a CPU and change nothing.
    torch.set_flush_denormal(True)
    if a.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{a.out.resolve()}/rendezvous", rank=rank,
                                world_size=a.processes)
    torch.manual_seed(1)
    tokenizer = Tokenizer.from_file(str(a.out / "tokenizer.json"))
    net = Net(config(tokenizer.get_vocab_size()))
    initialise(net)
    net.watch_attention()
    decayed = [p for p in net.parameters() if p.ndim >= 2]
    others = [p for p in net.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [dict(params=decayed, weight_decay=0.05), dict(params=others, weight_decay=0.0)],
        lr=a.rate, betas=(0.9, 0.98),
    )
    done = {"clips": 0, "steps": 0, "seconds": 0.0}
    checkpoint = a.out / "checkpoint.pt"
    if a.warm and not checkpoint.exists():
        missing, unknown = net.load_state_dict(
            torch.load(a.warm / "checkpoint.pt", map_location="cpu")["net"], strict=False
        )
        if unknown or any(not name.startswith("way_head") for name in missing):
            raise ValueError(f"{a.warm} is another model: missing {missing}, unknown {unknown}")
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu")
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        done = saved["done"]
    practice = Practice(done.get("recall"))
    # Some clips are passed over (see Practice), none is drawn twice: at least a third is taken.
    clips = Clips(seed=a.seed, start=3 * done["clips"] + rank, step=a.processes, ramp=2 * a.clips,
                  hardness=a.hardness[0], final_hardness=a.hardness[1], pairs="seen")
    choice = random.Random(1000 * done["steps"] + rank)
    drawing = random.Random(1000 * done["steps"] + 500 + rank)
    batches = prefetch(lambda: gather(clips, a.batch, a.encoded, practice, drawing))
    log = open(a.out / "train.log", "a") if rank == 0 else None
    sums, last = {}, time.time()
    while True:
        progress = max(done["clips"] / a.clips, done["seconds"] / 60 / a.minutes)
        ended = torch.tensor([progress, float((a.out / "stop").exists())])
        if a.processes > 1:
            dist.broadcast(ended, 0)
        progress = ended[0].item()
        if progress >= 1 or ended[1] > 0:
            break
        rate = a.rate * min(1, (done["steps"] + 1) / 100, max(0.01, (1 - progress) / a.decay))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, parts = step(net, tokenizer, batches.get(), clips.header, practice, choice)
        loss.backward()
        share_gradients(net, a.processes)
        parts["norm"] = torch.nn.utils.clip_grad_norm_(net.parameters(), 3.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            net.xclip.logit_scale.clamp_(max=4.6052)
        now = time.time()
        done = {"clips": done["clips"] + a.batch * a.processes, "steps": done["steps"] + 1,
                "seconds": done["seconds"] + now - last, "recall": practice.recall}
        last = now
        for name, part in parts.items():
            # Not every batch has a twin or a hard scene.
            value = float(part.detach())
            if value == value:
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + value, count + 1)
        if done["steps"] % 50 == 0:
            if rank == 0:
                line = {**done, "seconds": round(done["seconds"]),
                        "recall": [round(r, 2) for r in practice.recall], "rate": f"{rate:.1e}",
                        "scale": round(net.xclip.logit_scale.exp().item(), 1),
                        **{name: round(total / count, 3) for name, (total, count) in sums.items()}}
                print(json.dumps(line), file=log, flush=True)
            sums = {}
        if rank == 0 and done["steps"] % 200 == 0:
            save(checkpoint, net, optimiser, done)
    if rank == 0:
        save(checkpoint, net, optimiser, done)
    # The prefetch thread would wait for room in its queue for ever.
    clips.process.kill()
    os._exit(0)


def save(path, net, optimiser, done):
    """Never leaves half a file: an interrupted run goes on from the one before."""
    partial = path.with_suffix(".partial")
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "done": done}, partial)
    partial.replace(path)


def main():
    a = arguments()
    a.out.mkdir(parents=True, exist_ok=True)
    for left in ("rendezvous", "stop"):
        (a.out / left).unlink(missing_ok=True)
    if not (a.out / "tokenizer.json").exists():
        if a.warm:
            shutil.copy(a.warm / "tokenizer.json", a.out / "tokenizer.json")
        else:
            words.train().save(str(a.out / "tokenizer.json"))
    multiprocessing.spawn(work, (a,), a.processes)


if __name__ == "__main__":
    sys.exit(main())
