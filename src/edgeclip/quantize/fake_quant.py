"""Linear layers in float that give what the deployed int8 layers give (see `quantize.scheme`), with gradients.

Shape legend: O output channels, I input channels; "..." the rows of one call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.quantize.scheme import ACTIVATION_LEVELS, WEIGHT_LIMIT


def fake_quant_weight(weight_OI: Tensor, limit: int = WEIGHT_LIMIT) -> Tensor:
    """(O, I) rounded to the steps of its rows; the gradient passes straight through (Bengio et al. 2013)."""
    with torch.no_grad():
        scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True) / limit
        scale_O1 = torch.where(scale_O1 > 0, scale_O1, 1.0)
        rounded_OI = (weight_OI / scale_O1).round() * scale_O1
    return weight_OI + (rounded_OI - weight_OI).detach()


def fake_quant_activation(x: Tensor, *, per_sample: bool = False) -> Tensor:
    """Rounded to 256 levels between the smallest and the largest value; the gradient passes straight through.

    Args:
        x: (..., I).
        per_sample: one range for each entry of the first dimension, as if each were a call of its own.
    """
    with torch.no_grad():
        dims = tuple(range(1, x.ndim)) if per_sample and x.ndim > 1 else tuple(range(x.ndim))
        scale, zero_point = activation_range(x.amin(dim=dims, keepdim=True), x.amax(dim=dims, keepdim=True))
        levels = ((x / scale).round() + zero_point).clamp(0, ACTIVATION_LEVELS)
        rounded = (levels - zero_point) * scale
    return x + (rounded - x).detach()


def activation_range(smallest: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point of ONNX's DynamicQuantizeLinear, for values within [smallest, largest]; 0 is exact."""
    low, high = smallest.clamp(max=0), largest.clamp(min=0)
    scale = (high - low) / ACTIVATION_LEVELS
    scale = torch.where(scale > 0, scale, 1.0)
    return scale, (-low / scale).round()


class FakeQuantLinear(nn.Module):
    """A Linear as the int8 graph computes it in one call."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return functional.linear(fake_quant_activation(x), fake_quant_weight(self.linear.weight), self.linear.bias)
