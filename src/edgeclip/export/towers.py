"""The two towers as modules to export: rewritten, normalised at the end, with the names other clients expect.

Shape legend: B images, N texts, T tokens, D hidden size, E projection size.
"""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.export.rewrites import plain_attention
from edgeclip.export.rewrites.folded_query import FoldedPooling
from edgeclip.export.rewrites.pooled_last_block import PooledBlock, later_mask
from edgeclip.model.anatomy import pooled_index, seen
from edgeclip.model.fusion import log_size
from edgeclip.model.layers import Block, Transformer, through
from edgeclip.model.text import TextTower
from edgeclip.model.vision import VisionTower


class HasVision(Protocol):
    """A model, or its image tower alone."""

    @property
    def vision(self) -> VisionTower:
        """The tower."""
        ...


class HasText(Protocol):
    """A model, or its text tower alone."""

    @property
    def text(self) -> TextTower:
        """The tower."""
        ...


class ExportedImageTower(nn.Module):
    """`pixel_values` (B, 3, H, W) -> embeddings (B, E) of unit length, equal to `Clip.encode_image`."""

    def __init__(self, model: HasVision) -> None:
        super().__init__()
        tower = copy.deepcopy(model.vision)
        plain_attention.rewrite(tower.transformer)
        self.tower, positions_TD = tower, tower.position_embedding.detach()
        self.last: PooledBlock | FoldedPooling
        if tower.config.has_class_token:
            self.blocks, self.last = _split(tower.transformer)
            self.class_11D = nn.Buffer((tower.class_embedding.detach() + positions_TD[0])[None, None])
            self.positions_TD = nn.Buffer(positions_TD[1:].clone())
        else:
            self.blocks, self.last = tower.transformer.blocks, FoldedPooling(tower.head)
            self.positions_TD = nn.Buffer(positions_TD + tower.patch_embedding.bias.detach())
            tower.patch_embedding.register_parameter("bias", None)
            del tower.head
        del tower.transformer

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode images."""
        x_BTD = self.tower.patch_embedding(self.tower.unfold(pixel_values)) + self.positions_TD
        if self.tower.config.has_class_token:
            x_BTD = self.tower.pre_norm(torch.cat([self.class_11D.expand(x_BTD.shape[0], 1, -1), x_BTD], dim=1))
        size_BT = None
        for block in self.blocks:
            x_BTD, size_BT = through(block, x_BTD, size_BT, False)
        if isinstance(self.last, FoldedPooling):
            return functional.normalize(self.last(self.tower.post_norm(x_BTD)), dim=-1)
        pooled_BD = self.tower.post_norm(self.last(x_BTD, 0, log_size(size_BT)))
        return functional.normalize(self.tower.projection(pooled_BD), dim=-1)


class ExportedTextTower(nn.Module):
    """`input_ids` (N, T) -> embeddings (N, E), equal to `Clip.encode_text`; any T where texts need no padding."""

    def __init__(self, model: HasText) -> None:
        super().__init__()
        tower = copy.deepcopy(model.text)
        plain_attention.rewrite(tower.transformer)
        self.tower, self.blocks = tower, tower.transformer.blocks
        self.last: PooledBlock | None = None
        if tower.config.pooling != "mean":
            self.blocks, self.last = _split(tower.transformer)
        del tower.transformer

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode texts."""
        config = self.tower.config
        x_BTD, seen_BT = self.tower.embed(input_ids), seen(input_ids, config)
        for block in self.blocks:
            x_BTD = block(x_BTD, config.causal, seen_BT)
        if self.last is None:
            pooled_BD = self.tower.pool(x_BTD, input_ids)
        elif config.causal:
            index_B = pooled_index(input_ids, config)
            pooled_BD = self.last(x_BTD, index_B, later_mask(x_BTD.shape[1], index_B))
        else:
            pooled_BD = self.last(x_BTD, 0 if config.pooling == "first" else -1, log_size(seen_BT))
        return functional.normalize(self.tower.project(pooled_BD), dim=-1)


def _split(transformer: Transformer) -> tuple[nn.ModuleList, PooledBlock]:
    blocks = transformer.blocks
    last = blocks[len(blocks) - 1]
    assert isinstance(last, Block)  # noqa: S101 - for the type checker
    return blocks[: len(blocks) - 1], PooledBlock(last)
