"""A twin of a model that computes the same and is much harder to quantize.

Real CLIP checkpoints have a few channels of normalised activations that are tens of times larger than the others. A
small model trained for a short time has none; its twin gets them, so that quantization is tested on what it will meet.
Another twin has hidden units of an MLP that are huge and constant.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from edgeclip.model.clip import Clip
from edgeclip.model.fastvit import AttendingBlock, ConvBlock
from edgeclip.model.layers import AttentionPooling, Block

CHANNELS = 4
SMALLEST, LARGEST = 30.0, 100.0


@torch.no_grad()
def outlier_twin(model: Clip, seed: int = 0) -> Clip:
    """Scale `CHANNELS` random outputs of what stands before a Linear by 30 to 100, and divide the next weights by it.

    Where a block normalises what it adds up, nothing can be divided after it, and its values are scaled.

    Returns:
        A new model; its embeddings equal the original's but for rounding.
    """
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for module in twin.modules():
        if isinstance(module, Block) and module.normalizes_after:
            qkv, out = module.attention.qkv, module.attention.out
            _add_outliers((qkv.weight[-out.in_features :], qkv.bias[-out.in_features :]), out, generator)
        elif isinstance(module, Block):
            _add_outliers(module.norm1.parameters(), module.attention.qkv, generator)
            _add_outliers(module.norm2.parameters(), module.mlp.fc1, generator)
        elif isinstance(module, AttentionPooling):
            _add_outliers(module.norm.parameters(), module.mlp.fc1, generator)
        elif isinstance(module, ConvBlock):
            if isinstance(module, AttendingBlock):
                _add_outliers(module.norm.parameters(), module.attention.qkv, generator)
            _add_outliers(module.context.parameters(), module.mlp.fc1, generator)
    return twin


def _add_outliers(makers: Iterable[Tensor], following: nn.Linear, generator: torch.Generator) -> None:
    """`makers`, (I, ...) each, make what `following` reads: a normalisation, a convolution of each channel, values."""
    channels = torch.randperm(following.in_features, generator=generator)[:CHANNELS]
    factors = SMALLEST + (LARGEST - SMALLEST) * torch.rand(len(channels), generator=generator)
    for maker in makers:
        maker[channels] *= factors.view(-1, *[1] * (maker.ndim - 1))
    following.weight[:, channels] /= factors


@torch.no_grad()
def constant_units_twin(model: Clip, *, units: int = 8, value: float = 60.0, seed: int = 0) -> Clip:
    """Add hidden units to every MLP that are always `value`, and take what they add out of the next bias.

    No normalisation stands between them and the next weights, so that no channel size can be moved there.

    Returns:
        A new model; its embeddings equal the original's but for rounding.
    """
    config = model.config
    towers = {
        name: replace(tower, intermediate_size=tower.intermediate_size + units)
        for name, tower in (("vision", config.vision), ("text", config.text))
    }
    twin, generator = Clip(replace(config, **towers)).eval(), torch.Generator().manual_seed(seed)
    state = twin.state_dict()
    for name, theirs in model.state_dict().items():
        ours = state[name]
        if ours.shape == theirs.shape:
            ours.copy_(theirs)
    for name in [name for name in state if name.endswith("mlp.fc2.weight")]:
        block, theirs = name.removesuffix("fc2.weight"), model.state_dict()
        added = torch.randn(len(state[name]), units, generator=generator) * theirs[name].std()
        state[f"{block}fc1.weight"].copy_(torch.cat([theirs[f"{block}fc1.weight"], torch.zeros(units, len(added))]))
        state[f"{block}fc1.bias"].copy_(torch.cat([theirs[f"{block}fc1.bias"], torch.full((units,), value)]))
        state[name].copy_(torch.cat([theirs[name], added], dim=1))
        state[f"{block}fc2.bias"].copy_(theirs[f"{block}fc2.bias"] - value * added.sum(dim=1))
    return twin
