"""CLIP: an image tower, a text tower and the scale of their similarities (Radford et al. 2021, section 2).

SigLIP (Zhai et al. 2023) is one with other pooling, and a bias beside the scale.

Shape legend: B images, N texts, T tokens, E projection size.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.config import ClipConfig, VisionConfig
from edgeclip.model.fastvit import FastViT
from edgeclip.model.layers import Tokens
from edgeclip.model.text import TextTower
from edgeclip.model.vision import VisionTower

MAX_LOGIT_SCALE = 100.0


class HasVision(Protocol):
    """A model, or its image tower alone."""

    @property
    def vision(self) -> VisionTower | FastViT:
        """The tower."""
        ...


class HasText(Protocol):
    """A model, or its text tower alone."""

    @property
    def text(self) -> TextTower:
        """The tower."""
        ...


class Clip(nn.Module):
    """Two encoders into one space of unit vectors."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = image_tower(config.vision, config.projection_dim)
        self.text = TextTower(config.text, config.projection_dim)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(10 if config.sigmoid else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if config.sigmoid else None

    @property
    def logit_scale(self) -> Tensor:
        """The factor on cosine similarities (1 / temperature); a 0-d tensor."""
        return self.log_logit_scale.exp()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep `logit_scale` at or below 100, as CLIP's paper does after every training step; SigLIP's has no limit."""
        if self.logit_bias is None:
            self.log_logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) float -> (B, E) L2-normalised `image_embeds`."""
        return functional.normalize(self.vision(pixel_values), dim=-1)

    def encode_text(self, input_ids: Tensor) -> Tensor:
        """(N, T) int64 -> (N, E) L2-normalised `text_embeds`."""
        return functional.normalize(self.text(input_ids), dim=-1)

    def image_features(self, pixel_values: Tensor) -> tuple[Tensor, Tokens]:
        """(B, 3, H, W) -> what `encode_image` returns, and what the tower makes of every token."""
        pooled_BE, tokens = self.vision.features(pixel_values)
        return functional.normalize(pooled_BE, dim=-1), tokens

    def text_features(self, input_ids: Tensor) -> tuple[Tensor, Tokens]:
        """(N, T) int64 -> what `encode_text` returns, and what the tower makes of every token."""
        pooled_NE, tokens = self.text.features(input_ids)
        return functional.normalize(pooled_NE, dim=-1), tokens

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """(B, 3, H, W) and (N, T) -> (B, N) scaled similarities and a bias, where there is one: `logits_per_image`."""
        logits_BN = self.logit_scale * self.encode_image(pixel_values) @ self.encode_text(input_ids).T
        return logits_BN if self.logit_bias is None else logits_BN + self.logit_bias


def image_tower(config: VisionConfig, projection_dim: int) -> VisionTower | FastViT:
    """The image tower that a configuration describes."""
    return (VisionTower if config.convolutions is None else FastViT)(config, projection_dim)
