"""Losses of the demo model. B clips, K texts, logits (B, K)."""

import torch
import torch.nn.functional as F

from model import GRID, JOINTS

FALL, EMPTY = 5, 19
# Actions of two people.
PAIRS = (16, 17, 18)
# A window shows a short action as clearly with fewer frames.
WEIGHT = torch.ones(20)
WEIGHT[FALL] = 1.8


def presence(clips):
    """(B, 20) in 0..1: how far each action should be reported. One half where three of eight frames show it, so that
    an event is known a little before its action fills half of the window."""
    seen = torch.zeros(len(clips), 20)
    for row, clip in zip(seen, clips):
        for action in clip["actions"]:
            # Getting up and the like are none of the twenty.
            if action is not None:
                row[action] += 1 / len(clip["actions"])
        if clip["other"] is not None:
            row[clip["other"]] += 1
    return ((seen * WEIGHT - 0.15) / 0.45).clamp(0, 1)


def background(logits):
    """Log-mean-exp over the background prompts (B, K) -> (B, 1): one class, however many prompts it has."""
    return logits.logsumexp(1, keepdim=True) - torch.log(torch.tensor(float(logits.shape[1])))


def labels_closed(logits, target):
    """Cross-entropy among the 20 labels."""
    total = target.sum(1, keepdim=True)
    share = target / total.clamp(min=1e-6)
    share = 0.98 * share + 0.02 / target.shape[1]
    # A clip of something else has no place among them.
    return -(share * logits.log_softmax(1) * (total > 0)).sum(1).mean()


def labels_open(logits, generic, target):
    """What the detector computes with competition=background: each label alone against the background."""
    difference = logits - background(generic)
    weight = torch.tensor(2.0)
    return F.binary_cross_entropy_with_logits(difference, target, pos_weight=weight, reduction="none").sum(1).mean()


def matches(clips, captions):
    """(B, K): the caption is true of the clip."""
    def column(rows, key, none):
        return torch.tensor([none if row[key] is None else row[key] for row in rows])

    action, said_action = column(clips, "action", -9), column(captions, "action", -9)
    colour, said_colour = column(clips, "colour", -9), column(captions, "colour", -1)
    direction, said_direction = column(clips, "direction", -9), column(captions, "direction", 0)
    other, other_colour = column(clips, "other", -9), column(clips, "other_colour", -9)
    main = (
        (action[:, None] == said_action)
        & ((said_colour < 0) | (colour[:, None] == said_colour))
        & ((said_direction == 0) | (direction[:, None] == said_direction))
    )
    beside = (
        (other[:, None] == said_action)
        & ((said_colour < 0) | (other_colour[:, None] == said_colour))
        & (said_direction == 0)
    )
    return (main | beside).float()


def captions(logits, match, generic):
    """Clip to caption and back, over all captions true of a clip. A generic caption (the last column) is true of
    every clip with people but gets a tenth of the weight: it must stay below a caption that says what happens."""
    target = match / match.sum(1, keepdim=True).clamp(min=1)
    target = torch.cat([target * (1 - 0.1 * generic), 0.1 * generic], 1)
    forth = -(target * logits.log_softmax(1)).sum(1).mean()
    own = logits[:, :-1]
    used = match.sum(0) > 0
    back = -(match / match.sum(0, keepdim=True).clamp(min=1) * own.log_softmax(0)).sum(0)[used].mean()
    return forth + 0.5 * back


def colours(logits, clips):
    """Cross-entropy among `a person in C`, one text per colour, of clips with one person: (loss, hits)."""
    alone = [i for i, clip in enumerate(clips)
             if clip["colour"] is not None and clip["other"] is None and clip["action"] not in PAIRS]
    if not alone:
        return torch.zeros(()), torch.zeros(())
    target = torch.tensor([clips[i]["colour"] for i in alone])
    mine = logits[alone]
    return F.cross_entropy(mine, target), (mine.argmax(1) == target).float().mean()


def both_ways(logits, twins):
    """`twins`: (clip, its twin, column of the text true of the first, of the second). The text must choose the clip
    and the clip the text: (loss, share of choices that are right)."""
    if not twins:
        return torch.zeros(()), torch.full((), float("nan"))
    square = torch.stack([logits[[i, j]][:, [k, l]] for i, j, k, l in twins])
    target = torch.tensor([0, 1]).expand(len(twins), 2)
    loss = F.cross_entropy(square.transpose(1, 2), target) + F.cross_entropy(square, target)
    right = (square[:, 0, 0] > square[:, 0, 1]).float() + (square[:, 1, 1] > square[:, 1, 0]).float()
    return loss, right.mean() / 2


def in_order(joints):
    """Two people from left to right, which a picture shows, and not in the order of the script."""
    there = (joints.abs().sum((2, 3)) > 0).all(1)
    swap = there & (joints[:, 0, 0, 0] > joints[:, 1, 0, 0])
    return torch.where(swap[:, None, None, None], joints.flip(1), joints)


def figures(net, cls, patches, joints):
    """Where the people are: joints from CLS, joints per patch, and CLS attention to the patches with people.
    These only teach the image side to see; the plugin never computes them."""
    joints = in_order(torch.as_tensor(joints).flatten(0, 1))  # N, 2, 11, 2
    there = (joints.abs().sum((2, 3)) > 0).float()
    guess = net.pose_head(cls).view(-1, 2, JOINTS, 2)
    pose = F.smooth_l1_loss(guess, (joints - 0.5) * 4, reduction="none", beta=0.3).mean((2, 3))
    pose = (pose * there).sum() / there.sum().clamp(min=1)

    inside = ((joints > 0) & (joints < 1)).all(3) & (there[..., None] > 0)
    cell = (joints * GRID).clamp(0, GRID - 1e-3)
    index = cell[..., 1].long() * GRID + cell[..., 0].long()
    occupied = torch.zeros(len(joints), JOINTS, GRID * GRID)
    offset = torch.zeros(len(joints), JOINTS, GRID * GRID, 2)
    for person in range(2):
        at = index[:, person, :, None]
        occupied.scatter_(2, at, torch.maximum(occupied.gather(2, at), inside[:, person, :, None].float()))
        fraction = (cell[:, person] - cell[:, person].floor())[:, :, None] - 0.5
        offset.scatter_(2, at[..., None].expand(-1, -1, -1, 2), fraction)
    dense = net.patch_head(patches).transpose(1, 2)
    patch = F.binary_cross_entropy_with_logits(dense[:, :JOINTS], occupied, pos_weight=torch.tensor(8.0))
    guess = dense[:, JOINTS:].reshape(len(joints), JOINTS, 2, -1).transpose(2, 3)
    shift = ((guess - offset).abs().sum(3) * occupied).sum() / occupied.sum().clamp(min=1)

    people = occupied.amax(1)  # N, P
    seen = people.sum(1) > 0
    attention = torch.zeros(())
    heads = net.config.vision_config.num_attention_heads
    layers = sorted({layer for layer, _ in net.attention})
    for layer in layers:
        # Half of the heads: the others are free to look elsewhere.
        query = net.attention[layer, "q_proj"][:, 0].unflatten(-1, (heads, -1))[:, : heads // 2]
        key = net.attention[layer, "k_proj"].unflatten(-1, (heads, -1))[:, :, : heads // 2]
        weights = torch.einsum("nhd,nlhd->nhl", query, key) * query.shape[-1] ** -0.5
        mass = (weights.softmax(-1)[:, :, 1 : 1 + GRID * GRID] * people[:, None]).sum(-1)
        attention = attention - (mass + 1e-4).log()[seen].mean() / len(layers)
    return pose, patch + 0.3 * shift, attention


def way(net, video, clips, joints):
    """Facing, place and movement across the picture of a single person, from the clip: what left and right need."""
    guess = net.way_head(video)
    joints = torch.as_tensor(joints)
    loss, count = torch.zeros(()), 0
    for row, clip, seen in zip(guess, clips, joints):
        x = seen[:, 0, 0, 0]
        here = (x != 0).nonzero().flatten()
        if clip["facing"] is None or clip["other"] is not None or len(here) < 4:
            continue
        path = torch.stack([x[here].mean() - 0.5, x[here[-1]] - x[here[0]]]) * 4
        loss = loss + F.smooth_l1_loss(row[1:], path)
        loss = loss + 0.5 * F.binary_cross_entropy_with_logits(row[0], torch.tensor(float(clip["facing"] > 0)))
        count += 1
    return loss / max(1, count)


def attributes(net, video, cls, clips):
    """Colour and facing from the frames, action from the clip."""
    def target(key, encode):
        unknown = [clip[key] is None or (key != "action" and clip["other"] is not None) for clip in clips]
        return torch.tensor([-100 if no else encode(clip[key]) for no, clip in zip(unknown, clips)])

    frames = net.frame_head(cls).view(len(clips), -1, 10).mean(1)
    colour, facing = target("colour", int), target("facing", lambda sign: int(sign > 0))
    # Clips played backwards show none of the twenty.
    action = target("action", lambda action: action if action < 20 else -100)
    loss = F.cross_entropy(net.action_head(video), action)
    # A batch without any known colour has no mean.
    if (colour >= 0).any():
        loss = loss + F.cross_entropy(frames[:, :8], colour)
    if (facing >= 0).any():
        loss = loss + 0.5 * F.cross_entropy(frames[:, 8:], facing)
    return loss
