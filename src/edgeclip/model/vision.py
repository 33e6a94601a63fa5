"""The image tower.

Shape legend: B batch, C channels, H and W pixels, G patches a side, P patch size, T tokens (G*G patches, and a
class token where there is one), D hidden size, E projection size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.config import ConvStem, VisionConfig
from edgeclip.model.layers import Activation, AttentionPooling, Tokens, Transformer, init_transformer


class VisionTower(nn.Module):
    """ViT: patches, after a class token where there is one, through a transformer, and pooled: see `VisionConfig`.

    The patch convolution (kernel = stride = P) is written as what it is, a Linear over unfolded patches, so that
    whatever treats Linear layers (quantization above all) treats it too.
    """

    def __init__(self, config: VisionConfig, projection_dim: int) -> None:
        super().__init__()
        self.config = config
        D, patch_values = config.hidden_size, config.num_channels * config.patch_size**2
        if config.stem is None:
            self.patch_embedding = nn.Linear(patch_values, D, bias=not config.has_class_token)
            nn.init.normal_(self.patch_embedding.weight, std=patch_values**-0.5)
        else:
            self.stem = _stem(config, config.stem)
        if config.has_class_token:
            self.class_embedding = nn.Parameter(torch.randn(D) * D**-0.5)
            self.pre_norm = nn.LayerNorm(D, eps=config.layer_norm_eps) if config.pre_norm else nn.Identity()
        self.position_embedding = nn.Parameter(torch.randn(config.num_tokens, D) * D**-0.5)
        self.transformer = Transformer(config, causal=False, fusion=config.fusion)
        self.post_norm = nn.LayerNorm(D, eps=config.layer_norm_eps)
        if config.has_class_token:
            self.projection = nn.Linear(D, projection_dim, bias=config.projection_bias)
        else:
            self.head = AttentionPooling(config)
        init_transformer(self.transformer, config)
        if config.has_class_token:
            nn.init.normal_(self.projection.weight, std=D**-0.5)
            if config.projection_bias:
                nn.init.zeros_(self.projection.bias)
        else:
            nn.init.zeros_(self.patch_embedding.bias)

    def unfold(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, G*G, C*P*P), each patch flattened channel first as a convolution kernel is.

        Raises:
            ValueError: the image is not of the configured size.
        """
        self.config.check_shape(pixel_values_BCHW.shape)
        B, C, H, _ = pixel_values_BCHW.shape
        P = self.config.patch_size
        G = H // P
        cropped = pixel_values_BCHW[:, :, : G * P, : G * P]
        return cropped.reshape(B, C, G, P, G, P).permute(0, 2, 4, 1, 3, 5).reshape(B, G * G, C * P * P)

    def patches(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, G*G, D), without positions."""
        if self.config.stem is None:
            return self.patch_embedding(self.unfold(pixel_values_BCHW))
        self.config.check_shape(pixel_values_BCHW.shape)
        return self.stem(pixel_values_BCHW).flatten(2).transpose(1, 2)

    def embed(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, T, D), what the first block is given."""
        x_BTD = self.patches(pixel_values_BCHW)
        if not self.config.has_class_token:
            return x_BTD + self.position_embedding
        class_B1D = self.class_embedding.to(x_BTD.dtype).expand(x_BTD.shape[0], 1, -1)
        return self.pre_norm(torch.cat([class_B1D, x_BTD], dim=1) + self.position_embedding)

    def pool(self, x_BTD: Tensor) -> Tensor:
        """What the last block gives -> (B, E), not normalised."""
        if self.config.has_class_token:
            pooled_BD = x_BTD[:, 0] if self.config.pooling == "class" else x_BTD[:, 1:].mean(dim=1)
            return self.projection(self.post_norm(pooled_BD))
        return self.head(self.post_norm(x_BTD))

    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, E), not normalised."""
        return self.pool(self.transformer(self.embed(pixel_values_BCHW)))

    def features(self, pixel_values_BCHW: Tensor) -> tuple[Tensor, Tokens]:
        """(B, C, H, W) float -> what `forward` returns, and every token, patches that were fused as one."""
        states = self.transformer.states(self.embed(pixel_values_BCHW))
        embeds_BTE = self.post_norm(states[-1])
        if self.config.has_class_token:
            embeds_BTE = self.projection(embeds_BTE)
        mask_BT = torch.ones(embeds_BTE.shape[:2], dtype=torch.bool, device=embeds_BTE.device)
        return self.pool(states[-1]), Tokens(embeds_BTE, mask_BT, states)


def _stem(config: VisionConfig, stem: ConvStem) -> nn.Sequential:
    """Convolutions whose batch normalisations are folded: see `checkpoint.timm`."""
    side, act = config.patch_size // 4, config.hidden_act
    return nn.Sequential(
        nn.Conv2d(config.num_channels, stem.width, side, side, stem.padding),
        Activation(act),
        nn.Conv2d(stem.width, stem.width, 2, 2),
        Activation(act),
        nn.Conv2d(stem.width, config.hidden_size, 2, 2),
    )
