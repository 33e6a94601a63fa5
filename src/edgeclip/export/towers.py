"""The two towers as modules to export: rewritten, normalised at the end, with the names other clients expect.

Shape legend: B images, N texts, T tokens, D hidden size, E projection size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.export.rewrites import plain_attention
from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.model import Clip
from edgeclip.model.layers import Block, Transformer, through
from edgeclip.model.text import end_of_text_index


class ExportedImageTower(nn.Module):
    """`pixel_values` (B, 3, H, W) -> `image_embeds` (B, E) of unit length, equal to `Clip.encode_image`."""

    def __init__(self, model: Clip) -> None:
        super().__init__()
        tower = copy.deepcopy(model.vision)
        plain_attention.rewrite(tower.transformer)
        self.tower, self.blocks, self.last = tower, *_split(tower.transformer)
        del tower.transformer
        positions_TD = tower.position_embedding.detach()
        self.class_11D = nn.Buffer((tower.class_embedding.detach() + positions_TD[0])[None, None])
        self.positions_TD = nn.Buffer(positions_TD[1:].clone())

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode images."""
        patches_BTD = self.tower.patch_embedding(self.tower.unfold(pixel_values)) + self.positions_TD
        x_BTD = torch.cat([self.class_11D.expand(patches_BTD.shape[0], 1, -1), patches_BTD], dim=1)
        x_BTD = self.tower.pre_norm(x_BTD)
        size_BT = None
        for block in self.blocks:
            x_BTD, size_BT = through(block, x_BTD, size_BT, False)
        pooled_BD = self.tower.post_norm(self.last(x_BTD, None, size_BT))
        return functional.normalize(self.tower.projection(pooled_BD), dim=-1)


class ExportedTextTower(nn.Module):
    """`input_ids` (N, T), any T up to the context length -> `text_embeds` (N, E), equal to `Clip.encode_text`."""

    def __init__(self, model: Clip) -> None:
        super().__init__()
        tower = copy.deepcopy(model.text)
        plain_attention.rewrite(tower.transformer)
        self.tower, self.blocks, self.last = tower, *_split(tower.transformer)
        del tower.transformer

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode texts."""
        x_BTD = self.tower.token_embedding(input_ids) + self.tower.position_embedding[: input_ids.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD, True)
        index_B = end_of_text_index(input_ids, self.tower.config.eos_token_id)
        pooled_BD = self.tower.final_norm(self.last(x_BTD, index_B))
        return functional.normalize(self.tower.projection(pooled_BD), dim=-1)


def _split(transformer: Transformer) -> tuple[nn.ModuleList, PooledBlock]:
    blocks = transformer.blocks
    last = blocks[len(blocks) - 1]
    assert isinstance(last, Block)  # noqa: S101 - for the type checker
    return blocks[: len(blocks) - 1], PooledBlock(last)
