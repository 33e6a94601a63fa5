"""The image tower.

Shape legend: B batch, C channels, H and W pixels, G patches a side, P patch size, T = G*G + 1 tokens, D hidden size,
E projection size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.config import VisionConfig
from edgeclip.model.layers import Tokens, Transformer, init_transformer


class VisionTower(nn.Module):
    """ViT: patches and a class token through a transformer; the class token is normalised and projected.

    The patch convolution (kernel = stride = P) is written as what it is, a Linear over unfolded patches, so that
    whatever treats Linear layers (quantization above all) treats it too.
    """

    def __init__(self, config: VisionConfig, projection_dim: int) -> None:
        super().__init__()
        self.config = config
        patch_values = config.num_channels * config.patch_size**2
        self.patch_embedding = nn.Linear(patch_values, config.hidden_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(config.hidden_size) * config.hidden_size**-0.5)
        self.position_embedding = nn.Parameter(
            torch.randn(config.num_patches + 1, config.hidden_size) * config.hidden_size**-0.5
        )
        self.pre_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.transformer = Transformer(config, causal=False, fusion=config.fusion)
        self.post_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, projection_dim, bias=False)
        init_transformer(self.transformer, config)
        nn.init.normal_(self.patch_embedding.weight, std=patch_values**-0.5)
        nn.init.normal_(self.projection.weight, std=config.hidden_size**-0.5)

    def unfold(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, G*G, C*P*P), each patch flattened channel first as a convolution kernel is.

        Raises:
            ValueError: the image is not of the configured size.
        """
        B, C, H, W = pixel_values_BCHW.shape
        P, size = self.config.patch_size, self.config.image_size
        if (self.config.num_channels, size, size) != (C, H, W):
            raise ValueError(
                f"pixel_values of shape {(B, C, H, W)}; expected (B, {self.config.num_channels}, {size}, {size})"
            )
        G = size // P
        cropped = pixel_values_BCHW[:, :, : G * P, : G * P]
        return cropped.reshape(B, C, G, P, G, P).permute(0, 2, 4, 1, 3, 5).reshape(B, G * G, C * P * P)

    def embed(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, T, D), what the first block is given."""
        patches_BTD = self.patch_embedding(self.unfold(pixel_values_BCHW))
        class_B1D = self.class_embedding.to(patches_BTD.dtype).expand(patches_BTD.shape[0], 1, -1)
        x_BTD = torch.cat([class_B1D, patches_BTD], dim=1) + self.position_embedding
        return self.pre_norm(x_BTD)

    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, E), not normalised."""
        x_BTD = self.transformer(self.embed(pixel_values_BCHW))
        return self.projection(self.post_norm(x_BTD[:, 0]))

    def features(self, pixel_values_BCHW: Tensor) -> tuple[Tensor, Tokens]:
        """(B, C, H, W) float -> what `forward` returns, and the class token with every patch, or fused patches."""
        states = self.transformer.states(self.embed(pixel_values_BCHW))
        embeds_BTE = self.projection(self.post_norm(states[-1]))
        mask_BT = torch.ones(embeds_BTE.shape[:2], dtype=torch.bool, device=embeds_BTE.device)
        return embeds_BTE[:, 0], Tokens(embeds_BTE, mask_BT, states)
