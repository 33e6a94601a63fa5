"""A twin of a model that computes the same and is much harder to quantize.

Real CLIP checkpoints have a few channels of normalised activations that are tens of times larger than the others. A
small model trained for a short time has none; its twin gets them, so that quantization is tested on what it will meet.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeclip.model.clip import Clip
from edgeclip.model.layers import Block

CHANNELS = 4
SMALLEST, LARGEST = 30.0, 100.0


@torch.no_grad()
def outlier_twin(model: Clip, seed: int = 0) -> Clip:
    """Scale `CHANNELS` random outputs of every block's normalisations by 30 to 100, and divide the next weights by it.

    Returns:
        A new model; its embeddings equal the original's but for rounding.
    """
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for block in [*twin.vision.transformer.blocks, *twin.text.transformer.blocks]:
        assert isinstance(block, Block)  # noqa: S101 - for the type checker
        _add_outliers(block.norm1, block.attention.qkv, generator)
        _add_outliers(block.norm2, block.mlp.fc1, generator)
    if model.config.vision.pools_by_attention:
        _add_outliers(twin.vision.head.norm, twin.vision.head.mlp.fc1, generator)
    return twin


def _add_outliers(norm: nn.LayerNorm, following: nn.Linear, generator: torch.Generator) -> None:
    channels = torch.randperm(following.in_features, generator=generator)[:CHANNELS]
    factors = SMALLEST + (LARGEST - SMALLEST) * torch.rand(len(channels), generator=generator)
    norm.weight[channels] *= factors
    norm.bias[channels] *= factors
    following.weight[:, channels] /= factors
