"""Where a tower's channels can change their size without changing what it computes: see `quantize.equalize`.

Between a normalisation and the layers that read it, and, since attention only averages values, between the rows that
make the values and the columns of the output projection. Not across the activation function.
"""

from __future__ import annotations

from torch import nn

from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.export.towers import ImageTower, TextTower
from edgeclip.model.layers import Block
from edgeclip.quantize.equalize import Joint


def joints(tower: ImageTower | TextTower) -> list[Joint]:
    """All of a tower's joints, in order."""
    found = [joint for index, block in enumerate(tower.blocks) for joint in _of_block(f"blocks.{index}", block)]
    return [*found, *_of_last(tower.last)]


def _of_block(name: str, block: nn.Module) -> list[Joint]:
    assert isinstance(block, Block)  # noqa: S101 - for the type checker
    qkv, out = block.attention.qkv, block.attention.out
    return [
        _after_norm(f"{name}.norm1", block.norm1, qkv),
        _values(f"{name}.values", qkv, out),
        _after_norm(f"{name}.norm2", block.norm2, block.mlp.fc1),
    ]


def _of_last(last: PooledBlock) -> list[Joint]:
    return [
        _after_norm("last.norm1", last.norm1, last.query, last.key_value),
        _values("last.values", last.key_value, last.attention.out),
        _after_norm("last.norm2", last.norm2, last.mlp.fc1),
    ]


def _after_norm(name: str, norm: nn.LayerNorm, *consumers: nn.Linear) -> Joint:
    return Joint(name, (norm.weight, norm.bias), consumers)


def _values(name: str, linear: nn.Linear, out: nn.Linear) -> Joint:
    """Of a fused projection, the last rows make the values."""
    return Joint(name, (linear.weight[-out.in_features :], linear.bias[-out.in_features :]), (out,))
