"""A convolutional image tower as a module to export.

Shape legend: B images, E projection size.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional

from edgeclip.export.rewrites import fusable_gelu, plain_attention
from edgeclip.model.clip import HasVision
from edgeclip.model.fastvit import AttendingBlock, ConvBlock, FastViT


class ExportedFastViT(nn.Module):
    """`pixel_values` (B, 3, H, W) -> embeddings (B, E) of unit length, equal to `Clip.encode_image`."""

    def __init__(self, model: HasVision) -> None:
        super().__init__()
        tower = copy.deepcopy(model.vision)
        assert isinstance(tower, FastViT)  # noqa: S101 - see `towers.exported_image_tower`
        self.tower, self.last = tower, None
        plain_attention.rewrite(block for block in self.blocks if isinstance(block, AttendingBlock))
        fusable_gelu.rewrite(self.tower)

    @property
    def blocks(self) -> list[ConvBlock]:
        """All blocks of all stages."""
        return [module for module in self.tower.stages.modules() if isinstance(module, ConvBlock)]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode images."""
        return functional.normalize(self.tower(pixel_values), dim=-1)
