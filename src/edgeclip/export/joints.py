"""The joints of the towers that are exported, whose last block is computed for the pooled token: see `equalize`."""

from __future__ import annotations

from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.export.towers import ImageTower, TextTower
from edgeclip.quantize.equalize import Joint
from edgeclip.quantize.joints import after_norm, joints_of_block, values


def joints(tower: ImageTower | TextTower) -> list[Joint]:
    """All of a tower's joints, in order."""
    found = [joint for index, block in enumerate(tower.blocks) for joint in joints_of_block(f"blocks.{index}", block)]
    return [*found, *_of_last(tower.last)]


def _of_last(last: PooledBlock) -> list[Joint]:
    return [
        after_norm("last.norm1", last.norm1, last.query, last.key_value),
        values("last.values", last.key_value, last.attention.out),
        after_norm("last.norm2", last.norm2, last.mlp.fc1),
    ]
