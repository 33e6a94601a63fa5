"""The bytes that an image's pixels were, which are what int8 multiplies: nothing is rounded, and no range is needed.

A patch embedding is given (byte * rescale_factor - mean) / std. With the factors moved into the weights, exactly, and
what is subtracted into a bias, it is a product of bytes and int8 weights. A range over an image's patches would round
its pixels to other levels than the 256 that they have, which was seven eighths of all error of the built-in teacher's
image tower.

Shape legend: I the inputs of a patch embedding, channel first as a convolution kernel is; O its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.config import PreprocessConfig
from edgeclip.quantize.fake_quant import fake_quant_weight, round_weight
from edgeclip.quantize.scheme import ACTIVATION_LEVELS

PATCH_EMBEDDING = "patch_embedding"
"""What the one layer that is given pixels is called, in any tower."""


@dataclass(frozen=True)
class PixelBytes:
    """How preprocessing makes `pixel_values` of bytes: `step` times a byte, and `zero`, each (I,) float32.

    Of all I, those of one channel after those of the other, `num_channels` in all, have the same.
    """

    step: Tensor
    zero: Tensor
    num_channels: int

    @classmethod
    def of(cls, config: PreprocessConfig, inputs: int) -> PixelBytes:
        """For a patch embedding of so many inputs.

        Raises:
            ConfigError: the preprocessing makes the same of every byte.
        """
        mean_C, std_C = torch.tensor(config.mean), torch.tensor(config.std)
        step_C, zero_C = config.rescale_factor / std_C, -mean_C / std_C
        step_I, zero_I = (values_C.repeat_interleave(inputs // len(mean_C)) for values_C in (step_C, zero_C))
        return cls(step_I, zero_I, len(mean_C))

    def of_bytes(self) -> tuple[Tensor, Tensor]:
        """How many bytes a unit of `pixel_values` is, and the byte that 0 is: each (num_channels, 1, 1)."""
        step_C11, zero_C11 = (of_I.view(self.num_channels, -1)[:, :1, None] for of_I in (self.step, self.zero))
        return 1 / step_C11, -zero_C11 / step_C11

    def round(self, patches: Tensor) -> Tensor:
        """(..., I) `pixel_values` as those of the nearest bytes."""
        step_I, zero_I = self.step.to(patches), self.zero.to(patches)
        bytes_ = ((patches - zero_I) / step_I).round_().clamp_(0, ACTIVATION_LEVELS)
        return bytes_.mul_(step_I).add_(zero_I)

    def fake_quant_weight(self, weight_OI: Tensor) -> Tensor:
        """(O, I) rounded as the product of bytes has it; the gradient passes straight through."""
        step_I = self.step.to(weight_OI)
        return fake_quant_weight(weight_OI * step_I) / step_I


class FakeQuantPatches(nn.Module):
    """A patch embedding as the int8 graph computes it, its weight rounded once as it is now."""

    def __init__(self, linear: nn.Linear, pixels: PixelBytes) -> None:
        super().__init__()
        self.pixels, step_I = pixels, pixels.step.to(linear.weight)
        self.weight_OI, self.bias = round_weight(linear.weight.detach() * step_I) / step_I, linear.bias

    def forward(self, patches: Tensor) -> Tensor:
        """(B, ..., I) -> (B, ..., O)."""
        return functional.linear(self.pixels.round(patches), self.weight_OI, self.bias)
