"""Narrower towers: the most important channels, whole heads and MLP units, each kept in its original order.

TinyCLIP's manual inheritance (Wu et al. 2023, released code) keeps the leading slice of every tensor; here importance
chooses. Heads and MLP units are chosen in each layer for itself, residual channels once for a whole tower. Dropping a
unit that nothing reads is exact; dropping channels changes what LayerNorm averages over and is made good by training.

Shape legend: D hidden size, H heads, K head size (D = H*K), F MLP units, L layers kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgeclip.config import TowerConfig
from edgeclip.shrink.plan import TowerPlan, head_size


@dataclass(frozen=True)
class Kept:
    """Ascending int64 indices of what is kept.

    `channels` (D,) of the residual stream; for each kept layer, the channels `heads` (D,) of its heads and its `units`
    (F,).
    """

    channels: Tensor
    heads: list[Tensor]
    units: list[Tensor]


def choose(importance: dict[str, Tensor], name: str, teacher: TowerConfig, plan: TowerPlan) -> Kept:
    """Choose by importance; each reader of the residual stream has an equal vote on its channels.

    Args:
        importance: from `importance.input_importance`.
        name: "vision" or "text".
        teacher: the teacher's tower.
        plan: how much of it is kept.
    """
    K, H = head_size(teacher), plan.num_attention_heads
    blocks = [f"{name}.transformer.blocks.{layer}" for layer in plan.layers]
    readers = [f"{block}.{part}" for block in blocks for part in ("attention.qkv", "mlp.fc1")] + [f"{name}.projection"]
    votes_D = torch.stack([functional.normalize(importance[reader], p=1, dim=0) for reader in readers]).sum(dim=0)
    heads_L = [_largest(importance[f"{block}.attention.out"].view(-1, K).sum(dim=1), H) for block in blocks]
    return Kept(
        channels=_largest(votes_D, H * K),
        heads=[(heads_H[:, None] * K + torch.arange(K, device=heads_H.device)).flatten() for heads_H in heads_L],
        units=[_largest(importance[f"{block}.mlp.fc2"], plan.intermediate_size) for block in blocks],
    )


def _largest(importance_I: Tensor, count: int) -> Tensor:
    return importance_I.argsort(descending=True, stable=True)[:count].sort().values


def inherit(state: dict[str, Tensor], name: str, layers: tuple[int, ...], kept: Kept) -> dict[str, Tensor]:
    """Copies of a tower's tensors, cut to what is kept, under the student's names; the token embedding keeps its rows.

    Args:
        state: the teacher's `state_dict`.
        name: "vision" or "text".
        layers: the teacher's layers that are kept.
        kept: from `choose`.
    """
    prefix, blocks = f"{name}.", f"{name}.transformer.blocks."
    # Outside the blocks the hidden size is the last axis of every tensor but the patch embedding.
    cut = {
        key: tensor.index_select(0 if key == "vision.patch_embedding.weight" else -1, kept.channels)
        for key, tensor in state.items()
        if key.startswith(prefix) and not key.startswith(blocks)
    }
    for i, layer in enumerate(layers):
        for part, axes in _block_axes(kept, i, state[f"{blocks}{layer}.attention.out.bias"].shape[0]).items():
            tensor = state[f"{blocks}{layer}.{part}"]
            for axis, index in enumerate(axes):
                tensor = tensor.index_select(axis, index)
            cut[f"{blocks}{i}.{part}"] = tensor
    return cut


def _block_axes(kept: Kept, i: int, D: int) -> dict[str, tuple[Tensor, ...]]:
    """For each tensor of the i-th kept block, the indices kept along each of its axes."""
    channels, heads, units = kept.channels, kept.heads[i], kept.units[i]
    query_key_value = torch.cat([heads, heads + D, heads + 2 * D])
    return {
        "norm1.weight": (channels,),
        "norm1.bias": (channels,),
        "attention.qkv.weight": (query_key_value, channels),
        "attention.qkv.bias": (query_key_value,),
        "attention.out.weight": (channels, heads),
        "attention.out.bias": (channels,),
        "norm2.weight": (channels,),
        "norm2.bias": (channels,),
        "mlp.fc1.weight": (units, channels),
        "mlp.fc1.bias": (units,),
        "mlp.fc2.weight": (channels, units),
        "mlp.fc2.bias": (channels,),
    }
