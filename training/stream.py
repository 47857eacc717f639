"""Reads the drawn world from `xclipd scene --raw` (format: src/scene/raw.rs)."""

import json
import os
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

XCLIPD = os.environ.get("XCLIPD", str(Path(__file__).resolve().parent.parent / "target/release/xclipd"))


def _read(pipe, count):
    data = pipe.read(count)
    if len(data) != count:
        raise EOFError(f"expected {count} bytes, the stream has {len(data)}")
    return data


def _read_json(pipe):
    (length,) = struct.unpack("<I", _read(pipe, 4))
    return json.loads(_read(pipe, length))


def _open(arguments, script=None):
    process = subprocess.Popen(
        [XCLIPD, "scene", "--raw", *map(str, arguments)],
        stdin=subprocess.PIPE if script else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        bufsize=1 << 20,
    )
    if script:
        process.stdin.write(script.encode())
        process.stdin.close()
    magic = process.stdout.readline()
    if magic != b"XCLIPRAW 1\n":
        raise ValueError(f"expected `XCLIPRAW 1`, got {magic!r}")
    return process, _read_json(process.stdout)


@dataclass
class Batch:
    frames: np.ndarray  # B, T, S, S, 3 uint8
    joints: np.ndarray  # B, T, 2 people, 11 joints, 2: fractions of the picture, 0 where nobody is
    clips: list  # one dict per clip, see `describe` in src/scene/raw.rs
    twins: list = field(default_factory=list)  # (position of a clip, of its mirrored or reversed twin)


class Clips:
    """An endless sequence of clips; `header` names labels, phrasings, colours and generic captions."""

    def __init__(self, **options):
        arguments = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
        self.process, self.header = _open(arguments)

    def batch(self, count, wanted=lambda clip: True):
        """The next `count` clips of which `wanted` (of the dict of a clip) is true."""
        h = self.header
        shape = (h["frames"], h["size"], h["size"], 3)
        poses = (h["frames"], h["people"], h["joints"], 2)
        frames = np.empty((count, *shape), np.uint8)
        joints = np.empty((count, *poses), np.float32)
        clips = []
        pipe = self.process.stdout
        while len(clips) < count:
            i = len(clips)
            clip = _read_json(pipe)
            seen, placed = _read(pipe, frames[i].size), _read(pipe, joints[i].size * 4)
            if not wanted(clip):
                continue
            clips.append(clip)
            frames[i] = np.frombuffer(seen, np.uint8).reshape(shape)
            joints[i] = np.frombuffer(placed, "<f4").reshape(poses)
        return Batch(frames, joints, clips)

    def close(self):
        self.process.stdout.close()
        self.process.wait()


def play(script, height=96, width=None, rate=4.0):
    """All pictures (N, H, W, 3 uint8) of a YAML script, and the header with its truth."""
    process, header = _open(
        ["--script", "-", "--size", height, "--width", width or height, "--rate", rate], script
    )
    shape = (header["frames"], header["height"], header["width"], 3)
    pictures = np.frombuffer(_read(process.stdout, int(np.prod(shape))), np.uint8).reshape(shape)
    process.stdout.close()
    process.wait()
    return pictures, header
