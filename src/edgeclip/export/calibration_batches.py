"""Pairs as a tower's inputs, many at once: images of one size, and texts of one length, so that none is padded.

Shape legend: B of one batch, S image size, T tokens.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from edgeclip.config import PreprocessConfig
from edgeclip.data.prepare import Prepared
from edgeclip.image import normalize
from edgeclip.tokenizer import ClipTokenizer

BATCH = 4
"""Few, so that what a backward pass needs of a large model fits in memory; more are hardly faster on a CPU."""


def image_batches(pairs: Prepared, preprocess: PreprocessConfig) -> list[Tensor]:
    """The images, (B, 3, S, S) float32."""
    starts = range(0, len(pairs), BATCH)
    return [torch.from_numpy(normalize(pairs.pixels[start : start + BATCH], preprocess)) for start in starts]


def text_batches(pairs: Prepared, tokenizer: ClipTokenizer) -> list[Tensor]:
    """The first captions by length, (B, T) int64; all of one length where the model sees padding."""
    by_length: dict[int, list[list[int]]] = defaultdict(list)
    for ids in tokenizer.token_ids(pairs.first_captions):
        by_length[len(ids)].append(ids)
    return [batch for same in by_length.values() for batch in torch.from_numpy(tokenizer.padded(same)).split(BATCH)]
