"""Linear layers in float that give what the deployed int8 layers give (see `quantize.scheme`), with gradients.

Shape legend: O output channels, I input channels; "..." the rows of one call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.quantize.scheme import ACTIVATION_LEVELS, PAIR_LIMIT, SLACK, WEIGHT_LIMIT


@torch.no_grad()
def round_weight(weight_OI: Tensor) -> Tensor:
    """(O, I) rounded as `scheme.weight_step` says."""
    paired = weight_OI.shape[1] // 2 * 2
    largest_O = weight_OI.abs().amax(dim=1) / WEIGHT_LIMIT
    if paired:
        sums_OP = weight_OI[:, 0:paired:2] + weight_OI[:, 1:paired:2]
        largest_O = torch.maximum(largest_O, sums_OP.abs_().amax(dim=1) / PAIR_LIMIT)
    return _to_steps(weight_OI, largest_O * SLACK)


@torch.no_grad()
def round_stored(table_VD: Tensor, limit: int) -> Tensor:
    """(V, D) rounded as `scheme.stored_step` says."""
    return _to_steps(table_VD, table_VD.abs().amax(dim=1) / limit)


def _to_steps(weight_OI: Tensor, step_O: Tensor) -> Tensor:
    step_O1 = torch.where(step_O > 0, step_O, 1.0)[:, None]
    return (weight_OI / step_O1).round_().mul_(step_O1)


@torch.no_grad()
def round_activation(x: Tensor, smallest: Tensor, largest: Tensor) -> Tensor:
    """X rounded to 256 levels between the smallest and the largest value, which broadcast to it."""
    scale, zero_point = activation_range(smallest, largest)
    return (x / scale).round_().add_(zero_point).clamp_(0, ACTIVATION_LEVELS).sub_(zero_point).mul_(scale)


def fake_quant_weight(weight_OI: Tensor) -> Tensor:
    """(O, I) as `round_weight` gives it; the gradient passes straight through (Bengio et al. 2013)."""
    return weight_OI + (round_weight(weight_OI) - weight_OI).detach()


def fake_quant_stored(table_VD: Tensor, limit: int) -> Tensor:
    """(V, D) as `round_stored` gives it, likewise."""
    return table_VD + (round_stored(table_VD, limit) - table_VD).detach()


def fake_quant_activation(x: Tensor, *, per_sample: bool = False) -> Tensor:
    """Rounded to 256 levels between the smallest and the largest value; the gradient passes straight through.

    Args:
        x: (..., I).
        per_sample: one range for each entry of the first dimension, as if each were a call of its own.
    """
    with torch.no_grad():
        dims = tuple(range(1, x.ndim)) if per_sample and x.ndim > 1 else tuple(range(x.ndim))
        rounded = round_activation(x, x.amin(dim=dims, keepdim=True), x.amax(dim=dims, keepdim=True))
    return x + (rounded - x).detach()


def activation_range(smallest: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point of ONNX's DynamicQuantizeLinear, for values within [smallest, largest]; 0 is exact."""
    low, high = smallest.clamp(max=0), largest.clamp(min=0)
    scale = (high - low) / ACTIVATION_LEVELS
    scale = torch.where(scale > 0, scale, 1.0)
    return scale, (-low / scale).round()


class FakeQuantLinear(nn.Module):
    """A Linear as the int8 graph computes it, each entry of the first dimension in a call of its own.

    The weight is rounded once, as it is now.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight_OI, self.bias = round_weight(linear.weight), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., I) -> (B, ..., O)."""
        return functional.linear(fake_quant_activation(x, per_sample=True), self.weight_OI, self.bias)
