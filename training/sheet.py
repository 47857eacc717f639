"""Draws a sheet of clips, one row per action, to look at: python sheet.py OUT.png [HARDNESS]"""

import sys

import numpy as np
from PIL import Image

from stream import Clips


def main(out, hardness=0.0):
    clips = Clips(seed=4_000_000_000, hardness=hardness, mixed=0.0)
    rows = {}
    while len(rows) < 20:
        batch = clips.batch(1)
        rows.setdefault(batch.clips[0]["action"], np.concatenate(list(batch.frames[0]), 1))
    clips.close()
    rows = [rows[i] for i in range(20)]
    Image.fromarray(np.concatenate([np.concatenate(rows[:10]), np.concatenate(rows[10:])], 1)).save(out)


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
