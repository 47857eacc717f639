"""The demo model's tokenizer: byte-level BPE in CLIP's manner, its merges learned from the grammar."""

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from model import CONTEXT
from stream import Clips

# CLIP's pattern.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train(count=4000):
    """Learns from the captions of `count` tiny clips. Deterministic."""
    clips = Clips(seed=2_000_000_000, size=8, count=count)
    texts = list(clips.header["generic"]) * 50
    for clip in clips.batch(count).clips:
        texts += [caption["text"] for caption in clip["captions"]] + clip["phrasings"]
    clips.close()

    t = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([
        normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase(),
    ])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1022, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), end_of_word_suffix="</w>",
        show_progress=False, special_tokens=[],
    ))
    start, end = "<|startoftext|>", "<|endoftext|>"
    t.add_special_tokens([start, end])
    if t.token_to_id(end) != t.get_vocab_size() - 1:
        raise ValueError("the end token must have the largest id")
    t.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, t.token_to_id(start)), (end, t.token_to_id(end))]
    )
    return t


def encode(tokenizer, texts):
    """Token ids (K, longest), padded with the end token."""
    rows = [encoded.ids for encoded in tokenizer.encode_batch(list(texts))]
    longest = max(map(len, rows))
    if longest > CONTEXT:
        raise ValueError(f"a text has {longest} tokens, the model reads {CONTEXT}")
    ids = np.full((len(rows), longest), tokenizer.get_vocab_size() - 1, np.int64)
    for row, known in zip(ids, rows):
        row[: len(known)] = known
    return torch.from_numpy(ids)
