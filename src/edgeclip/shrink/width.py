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
from edgeclip.model.anatomy import axes_of, last_reader
from edgeclip.shrink.plan import TowerPlan, head_size


@dataclass(frozen=True)
class Kept:
    """Ascending int64 indices of what is kept.

    `channels` (D,) of the residual stream; for each part, which are the kept layers and the attention pooling where
    there is one, the channels `heads` (D,) of its heads and its `units` (F,).
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
    readers = [f"{block}.{part}" for block in blocks for part in ("attention.qkv", "mlp.fc1")]
    readers.append(f"{name}.{last_reader(teacher)}")
    blocks += [f"{name}.head"] if teacher.pools_by_attention else []
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
    blocks, head = f"{name}.transformer.blocks.", f"{name}.head."
    parts = {f"{blocks}{layer}.": f"{blocks}{i}." for i, layer in enumerate(layers)} | {head: head}
    outside = [key for key in state if key.startswith(f"{name}.") and not key.startswith((blocks, head))]
    cut = {key: _cut(state[key], key, kept, 0) for key in outside}
    for i, (theirs, ours) in enumerate(parts.items()):
        tensors = {key.removeprefix(theirs): tensor for key, tensor in state.items() if key.startswith(theirs)}
        cut |= {f"{ours}{part}": _cut(tensor, part, kept, i) for part, tensor in tensors.items()}
    return cut


def _cut(tensor: Tensor, name: str, kept: Kept, i: int) -> Tensor:
    """A tensor of the i-th part cut along each of its axes; outside the parts no axis is one of heads or units."""
    for number, axis in enumerate(axes_of(name)):
        if axis == "channels":
            tensor = tensor.index_select(number, kept.channels)
        elif axis == "units":
            tensor = tensor.index_select(number, kept.units[i])
        elif axis == "heads":
            tensor = tensor.index_select(number, kept.heads[i])
        elif axis == "query_key_value":
            stacked = tensor.unflatten(number, (3, -1)).index_select(number + 1, kept.heads[i])
            tensor = stacked.flatten(number, number + 1)
    return tensor.clone()
