"""The two towers as modules to export: rewritten, normalised at the end, with the names other clients expect.

Shape legend: B images, N texts, T tokens, D hidden size, E projection size.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.export.convolutional import ExportedFastViT
from edgeclip.export.rewrites import fusable_gelu, plain_attention
from edgeclip.export.rewrites.folded_query import FoldedPooling
from edgeclip.export.rewrites.pooled_last_block import PooledBlock, later_mask
from edgeclip.model.anatomy import pooled_index, seen
from edgeclip.model.clip import HasText, HasVision
from edgeclip.model.fastvit import FastViT
from edgeclip.model.fusion import log_size
from edgeclip.model.layers import Block, Transformer, through
from edgeclip.model.vision import VisionTower


class ExportedImageTower(nn.Module):
    """`pixel_values` (B, 3, H, W) -> embeddings (B, E) of unit length, equal to `Clip.encode_image`."""

    def __init__(self, model: HasVision) -> None:
        super().__init__()
        tower = copy.deepcopy(model.vision)
        assert isinstance(tower, VisionTower)  # noqa: S101 - see `exported_image_tower`
        plain_attention.rewrite(tower.transformer.blocks)
        fusable_gelu.rewrite(tower)
        self.tower, positions_TD = tower, tower.position_embedding.detach()
        self.last: PooledBlock | FoldedPooling | None = None
        if tower.config.has_class_token:
            self.blocks = tower.transformer.blocks
            if tower.config.pooling == "class":
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
        x_BTD = self.tower.patches(pixel_values) + self.positions_TD
        if self.tower.config.has_class_token:
            x_BTD = self.tower.pre_norm(torch.cat([self.class_11D.expand(x_BTD.shape[0], 1, -1), x_BTD], dim=1))
        size_BT = None
        for block in self.blocks:
            x_BTD, size_BT = through(block, x_BTD, size_BT, False)
        if isinstance(self.last, FoldedPooling):
            return functional.normalize(self.last(self.tower.post_norm(x_BTD)), dim=-1)
        pooled_BD = x_BTD[:, 1:].mean(dim=1) if self.last is None else self.last(x_BTD, 0, log_size(size_BT))
        return functional.normalize(self.tower.projection(self.tower.post_norm(pooled_BD)), dim=-1)


class ExportedTextTower(nn.Module):
    """`input_ids` (N, T) -> embeddings (N, E), equal to `Clip.encode_text`; any T where texts need no padding."""

    def __init__(self, model: HasText) -> None:
        super().__init__()
        tower = copy.deepcopy(model.text)
        plain_attention.rewrite(block for block in tower.transformer.blocks if isinstance(block, Block))
        fusable_gelu.rewrite(tower)
        self.tower, self.blocks = tower, tower.transformer.blocks
        self.last: PooledBlock | None = None
        if tower.config.pooling != "mean" and tower.config.mixer is None:
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
        elif config.pooling == "end":
            index_B = pooled_index(input_ids, config)
            mask = later_mask(x_BTD.shape[1], index_B) if config.causal else None
            pooled_BD = self.last(x_BTD, index_B, mask)
        else:
            pooled_BD = self.last(x_BTD, 0 if config.pooling == "first" else -1, log_size(seen_BT))
        return functional.normalize(self.tower.project(pooled_BD), dim=-1)


Tower: TypeAlias = ExportedImageTower | ExportedFastViT | ExportedTextTower


def exported_image_tower(model: HasVision) -> ExportedImageTower | ExportedFastViT:
    """A model's image tower, in evaluation mode."""
    return (ExportedFastViT if isinstance(model.vision, FastViT) else ExportedImageTower)(model).eval()


def _split(transformer: Transformer) -> tuple[nn.ModuleList, PooledBlock]:
    blocks = transformer.blocks
    last = blocks[len(blocks) - 1]
    assert isinstance(last, Block)  # noqa: S101 - for the type checker
    return blocks[: len(blocks) - 1], PooledBlock(last)
