"""Where exported towers, whose last part is rewritten, can be rewritten for int8.

See `quantize.equalize` and `quantize.pairing`.
"""

from __future__ import annotations

from torch import nn

from edgeclip.export.rewrites.folded_query import FoldedPooling
from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.export.towers import Tower
from edgeclip.model.fastvit import AttendingBlock, ConvBlock
from edgeclip.model.layers import Block
from edgeclip.quantize.equalize import ScalePair
from edgeclip.quantize.pairing import pair_inputs
from edgeclip.quantize.scale_pairs import after_norm, before, pairs_of_block, values


def pairs_of_tower(tower: Tower) -> list[ScalePair]:
    """All of a tower's scale pairs, in order."""
    found = [pair for index, block in enumerate(tower.blocks) for pair in pairs_of_block(f"blocks.{index}", block)]
    if tower.last is None:
        return found
    if isinstance(tower.last, FoldedPooling):
        return [*found, *_of_pooling(tower.tower.post_norm, tower.last)]
    return [*found, *_of_last(tower.last)]


def _of_pooling(norm: nn.LayerNorm, last: FoldedPooling) -> list[ScalePair]:
    """The values read averages of what the scores read: channel by channel they have its scale."""
    return [
        after_norm("last.tokens", norm, last.scores, last.value),
        values("last.values", last.value, last.out),
        after_norm("last.norm", last.norm, last.mlp.fc1),
    ]


def pair_inputs_of_tower(tower: Tower) -> None:
    """Reorder, in place, the values of every head and the units of every MLP."""
    for block in tower.blocks:
        assert isinstance(block, Block | ConvBlock)  # noqa: S101 - for the type checker
        if not isinstance(block, ConvBlock) or isinstance(block, AttendingBlock):
            pair_inputs(block.attention.projections[-1], block.attention.out, block.attention.num_heads)
        pair_inputs(block.mlp.fc1, block.mlp.fc2)
    if tower.last is None:
        return
    last = tower.last
    if isinstance(last, FoldedPooling):
        pair_inputs(last.value, last.out, last.scores.out_features)
    else:
        pair_inputs(last.key_value, last.attention.out, last.attention.num_heads)
    pair_inputs(last.mlp.fc1, last.mlp.fc2)


def _of_last(last: PooledBlock) -> list[ScalePair]:
    norm1, norm2 = (None, None) if last.normalizes_after else (last.norm1, last.norm2)
    return [
        *before("last.norm1", norm1, last.attention_input, last.query, last.key_value),
        values("last.values", last.key_value, last.attention.out),
        *before("last.norm2", norm2, last.mlp_input, last.mlp.fc1),
    ]
