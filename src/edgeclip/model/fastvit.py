"""FastViT (Vasu et al. 2023, arXiv 2303.14189), the convolutional image tower of MobileCLIP, in its inference form.

A tower is trained with several branches beside each convolution, each with a batch normalisation, and with scales of
what a block adds. All of that is linear, and folded into one convolution or Linear when weights are loaded: see
`checkpoint.fastvit`. Convolutions of one pixel are written as what they are, Linear layers over places, so that
whatever treats Linear layers (quantization above all) treats them too.

Shape legend: B batch, C channels, H and W pixels or places, T places (H*W), D width of a stage, E projection size.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edgeclip.config import (
    CONTEXT,
    HALVING,
    LAST_SQUEEZE,
    MIXER,
    SQUEEZE,
    WIDENED,
    ConvStages,
    Stage,
    TowerConfig,
    VisionConfig,
)
from edgeclip.model.layers import MLP, Attention, Tokens, activation


def depthwise(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1) -> nn.Conv2d:
    """A convolution of each channel alone, whose places stay where they are."""
    padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=inputs)


def places_last(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, T, C)."""
    return x_BCHW.flatten(2).transpose(1, 2)


def places_apart(x_BTC: Tensor, like_BCHW: Tensor) -> Tensor:
    """(B, T, C) -> (B, C, H, W), of the height and width of another."""
    return x_BTC.transpose(1, 2).unflatten(2, like_BCHW.shape[2:])


class Affine(nn.Module):
    """A scale and shift of each channel: what a batch normalisation is once it is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return x_BTD * self.weight + self.bias


class Squeeze(nn.Module):
    """Channels weighed by what all places have of them together (Hu et al. 2018, Squeeze-and-Excitation)."""

    def __init__(self, width: int, share: int) -> None:
        super().__init__()
        self.fewer, self.all = nn.Conv2d(width, width // share, 1), nn.Conv2d(width // share, width, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x_BCHW * self.all(self.fewer(x_BCHW.mean((2, 3), keepdim=True)).relu()).sigmoid()


class ConvBlock(nn.Module):
    """A mixture of places, then x + mlp(context(x))."""

    def __init__(
        self, config: TowerConfig, mixer: int | tuple[int, int] = MIXER, context: int | tuple[int, int] = CONTEXT
    ) -> None:
        super().__init__()
        width = config.hidden_size
        self.mixer: nn.Module = depthwise(width, width, mixer)
        self.context, self.mlp = depthwise(width, width, context), MLP(config)

    def mix(self, x_BCHW: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, D, H, W)."""
        return self.mixer(x_BCHW)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, D, H, W)."""
        x_BCHW = self.mix(x_BCHW)
        return x_BCHW + places_apart(self.mlp(places_last(self.context(x_BCHW))), x_BCHW)


class TokenBlock(ConvBlock):
    """The same over the tokens of a text, of which it sees so many: MobileCLIP-S0's (Vasu et al. 2024, section 4.2)."""

    def __init__(self, config: TowerConfig, tokens: int) -> None:
        super().__init__(config, (1, tokens), (1, tokens))

    def forward(self, x_BTD: Tensor, causal: bool = False, size_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), as `Block` is called; all tokens are seen."""
        return places_last(super().forward(x_BTD.transpose(1, 2)[:, :, None]))


class AttendingBlock(ConvBlock):
    """The same, with x + attention(norm(x)) for the mixture."""

    def __init__(self, config: TowerConfig, norm: nn.Module) -> None:
        super().__init__(config)
        del self.mixer
        self.norm, self.attention = norm, Attention(config)

    def mix(self, x_BCHW: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, D, H, W)."""
        x_BTD = places_last(x_BCHW)
        return x_BCHW + places_apart(self.attention(self.norm(x_BTD), False), x_BCHW)


class Halving(nn.Module):
    """Half the resolution and more channels."""

    def __init__(self, inputs: int, stage: Stage, hidden_act: str) -> None:
        super().__init__()
        self.context = depthwise(inputs, stage.width, HALVING, stride=2)
        self.squeeze = Squeeze(stage.width, SQUEEZE) if stage.squeezes else None
        self.pointwise, self.activation = nn.Linear(stage.width, stage.width), activation(hidden_act)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H / 2, W / 2), rounded up."""
        x_BCHW = self.context(x_BCHW)
        if self.squeeze is not None:
            x_BCHW = self.squeeze(x_BCHW)
        x_BCHW = self.activation(x_BCHW)
        return places_apart(self.activation(self.pointwise(places_last(x_BCHW))), x_BCHW)


class FastViT(nn.Module):
    """Convolutions, stages of blocks, a last convolution, and the mean over places projected: see `VisionConfig`."""

    def __init__(self, config: VisionConfig, projection_dim: int) -> None:
        super().__init__()
        assert config.convolutions is not None  # noqa: S101 - what makes it this tower
        self.config, stages = config, config.convolutions.stages
        first, width = stages[0].width, config.hidden_size
        self.activation = activation(config.hidden_act)
        self.stem = nn.Conv2d(config.num_channels, first, 3, 2, 1)
        self.stem_depthwise, self.stem_pointwise = depthwise(first, first, 3, stride=2), nn.Linear(first, first)
        self.halvings = nn.ModuleList(
            Halving(before.width, stage, config.hidden_act) for before, stage in pairwise(stages)
        )
        self.positions = nn.ModuleList(
            depthwise(stage.width, stage.width, CONTEXT) if stage.attends else nn.Identity() for stage in stages
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(_block(config, config.convolutions, stage) for _ in range(stage.depth)) for stage in stages
        )
        self.last = depthwise(width, WIDENED * width, MIXER)
        self.squeeze = Squeeze(WIDENED * width, LAST_SQUEEZE)
        self.projection = nn.Linear(WIDENED * width, projection_dim, bias=config.projection_bias)
        self._draw()

    def _draw(self) -> None:
        """Start with layers that keep the size of what they read, as batch normalisations do until they are folded.

        Those into which a branch that only passes its input on is folded start near that.
        """
        sized: list[nn.Conv2d | nn.Linear] = [self.stem, self.stem_depthwise, self.stem_pointwise, self.last]
        passing: list[nn.Module] = [*self.positions]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Halving):
                sized += [module.context, module.pointwise]
            elif isinstance(module, ConvBlock) and not isinstance(module, AttendingBlock):
                passing.append(module.mixer)
        for layer in sized:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for module in passing:
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                module.weight.data[:, :, module.kernel_size[0] // 2, module.kernel_size[1] // 2] += 1

    def embed(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, D, H / 4, W / 4), what the first stage is given.

        Raises:
            ValueError: the image is not of the configured size.
        """
        self.config.check_shape(pixel_values_BCHW.shape)
        x_BCHW = self.activation(self.stem_depthwise(self.activation(self.stem(pixel_values_BCHW))))
        return places_apart(self.activation(self.stem_pointwise(places_last(x_BCHW))), x_BCHW)

    def states(self, pixel_values_BCHW: Tensor) -> list[Tensor]:
        """(B, C, H, W) float -> what every stage gives, (B, D, H, W) each of its own size."""
        x_BCHW, states = self.embed(pixel_values_BCHW), list[Tensor]()
        for index, (blocks, position) in enumerate(zip(self.stages, self.positions, strict=True)):
            x_BCHW = position(self.halvings[index - 1](x_BCHW) if index else x_BCHW)
            assert isinstance(blocks, nn.ModuleList)  # noqa: S101 - for the type checker
            for block in blocks:
                x_BCHW = block(x_BCHW)
            states.append(x_BCHW)
        return states

    def widen(self, x_BCHW: Tensor) -> Tensor:
        """What the last stage gives -> what is averaged over places, (B, 2 D, H, W)."""
        return self.activation(self.squeeze(self.last(x_BCHW)))

    def forward(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, E), not normalised."""
        return self.projection(self.widen(self.states(pixel_values_BCHW)[-1]).mean((2, 3)))

    def features(self, pixel_values_BCHW: Tensor) -> tuple[Tensor, Tokens]:
        """(B, C, H, W) float -> what `forward` returns, and every place of the last stage; the states of all stages."""
        states = self.states(pixel_values_BCHW)
        embeds_BTE = self.projection(places_last(self.widen(states[-1])))
        mask_BT = torch.ones(embeds_BTE.shape[:2], dtype=torch.bool, device=embeds_BTE.device)
        return embeds_BTE.mean(dim=1), Tokens(embeds_BTE, mask_BT, tuple(map(places_last, states)))


def _block(config: VisionConfig, convolutions: ConvStages, stage: Stage) -> ConvBlock:
    """A block of a stage, whose heads and MLP are as wide, for its width, as those of the last."""
    width, head_size = stage.width, config.hidden_size // config.num_attention_heads
    own = TowerConfig(
        hidden_size=width,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=max(width // head_size, 1),
        intermediate_size=width * config.intermediate_size // config.hidden_size,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )
    if not stage.attends:
        return ConvBlock(own)
    norm = Affine(width) if convolutions.norm == "affine" else nn.LayerNorm(width, eps=config.layer_norm_eps)
    return AttendingBlock(own, norm)
