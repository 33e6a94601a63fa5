"""The scale pairs of the exported towers, whose last block is computed for the pooled token: see `equalize`."""

from __future__ import annotations

from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.quantize.equalize import ScalePair
from edgeclip.quantize.scale_pairs import after_norm, pairs_of_block, values


def pairs_of_tower(tower: ExportedImageTower | ExportedTextTower) -> list[ScalePair]:
    """All of a tower's scale pairs, in order."""
    found = [pair for index, block in enumerate(tower.blocks) for pair in pairs_of_block(f"blocks.{index}", block)]
    return [*found, *_of_last(tower.last)]


def _of_last(last: PooledBlock) -> list[ScalePair]:
    return [
        after_norm("last.norm1", last.norm1, last.query, last.key_value),
        values("last.values", last.key_value, last.attention.out),
        after_norm("last.norm2", last.norm2, last.mlp.fc1),
    ]
