"""Clips made from clips: mirrored (left becomes right) and backwards (sitting down becomes standing up).

Both come in pairs with the clip they were made from, so that nothing but direction or order tells the two apart.
"""

import copy
import re

import numpy as np

FALL = 5
# Actions of clips played backwards count on from the twenty.
BACKWARDS = 20


def turned(text):
    """The caption with left and right exchanged."""
    return re.sub(r"\b(left|right)\b", lambda word: "right" if word[1] == "left" else "left", text)


def mirror(frames, joints, clip):
    clip = copy.deepcopy(clip)
    for row in [clip, *clip["captions"]]:
        for key in ("direction", "facing"):
            if row.get(key) is not None:
                row[key] = -row[key]
        if "text" in row:
            row["text"] = turned(row["text"])
    there = joints.any((2, 3), keepdims=True)
    joints = np.stack([np.where(there[..., 0], 1 - joints[..., 0], 0), joints[..., 1]], -1)
    return frames[:, :, ::-1], joints, clip


def can_reverse(clip, header):
    """The movement happens within the clip, by the person it is about."""
    actions = clip["actions"]
    moving = any(movement["action"] == clip["action"] for movement in header["movements"])
    if not moving or actions[0] == clip["action"]:
        return False
    return 1 <= actions.index(clip["action"]) <= len(actions) - 4


def reverse(frames, joints, clip, header, choice):
    """The clip backwards. Frames of the movement show none of the twenty actions."""
    clip = copy.deepcopy(clip)
    action, actions = clip["action"], clip["actions"]
    first = actions.index(action)
    for i, seen in enumerate(actions):
        if seen == action and (action == FALL or i < first + 3):
            actions[i] = None
    clip["actions"] = actions[::-1]
    number = [movement["action"] for movement in header["movements"]].index(action)
    clip["action"], clip["direction"] = BACKWARDS + number, None
    text = choice.choice(header["movements"][number]["backwards"])
    colour = clip["colour"] if choice.random() < 0.5 else None
    if colour is not None or choice.random() < 0.6:
        subject = choice.choice(["a person", "someone", "a man", "a woman", "a figure"])
        wearing = "" if colour is None else choice.choice([" in ", " wearing "]) + header["colours"][colour]
        text = f"{subject}{wearing} {text}"
    clip["captions"] = [{"text": text, "action": clip["action"], "colour": colour, "direction": None}]
    return frames[::-1], joints[::-1], clip


def pair_texts(clip, other, header, choice):
    """Two texts, true of `clip` and of the mirrored or reversed `other`, that differ in just that."""
    if other["action"] >= BACKWARDS:
        movement = header["movements"][other["action"] - BACKWARDS]
        subject = choice.choice(["", "", "a person ", "someone "])
        return [subject + choice.choice(movement[way]) for way in ("forwards", "backwards")]
    phrase = choice.choice(header["phrasings"][clip["action"]])
    subject = choice.choice(["", "a person ", "someone ", "a man ", "a woman "])
    link = choice.choice([" to the ", " ", " towards the "])
    words = ["right", "left"] if clip["direction"] > 0 else ["left", "right"]
    return [subject + phrase + link + word for word in words]
