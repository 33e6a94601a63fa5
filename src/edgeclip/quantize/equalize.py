"""Move the size of large channels from activations into weights, where it costs less: an exact rewrite for int8.

An activation channel j that is divided by s_j before a Linear whose column j is multiplied by s_j leaves the layer's
output as it is. s_j = max|X_j|^a / max|W_j|^(1-a) (Xiao et al. 2023, SmoothQuant, equation 4); `a` is searched for
each layer by the error that the int8 layer would make, and no scaling is one of the candidates. One pass over the
calibration samples notes what is needed for it: the ranges of all channels, and a few rows and outputs to estimate the
error on.

Shape legend: B samples of one call, T tokens, R of them, O output channels, I input channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeclip.quantize.fake_quant import round_activation, round_weight

ALPHAS = (0.3, 0.5, 0.7, 0.9)
ROWS = 16
"""Of a sample's tokens, so many say how large an error is."""
OUTPUTS = 512
"""Likewise of a layer's outputs."""


@dataclass(frozen=True)
class ScalePair:
    """Where a channel's size can be moved: `producers` (I, ...) make the channels, `consumers` read them."""

    name: str
    producers: tuple[Tensor, ...]
    consumers: tuple[nn.Linear, ...]


@dataclass(frozen=True)
class Seen:
    """What one call gave to a Linear: each sample's range of every channel (B, 1, I), and some rows (B, R, I)."""

    smallest: Tensor
    largest: Tensor
    rows: Tensor


@torch.no_grad()
def equalize(pairs: Sequence[ScalePair], run: Callable[[], object]) -> dict[str, float]:
    """Scale the channels of every pair in place, by the best of `ALPHAS` or not at all.

    Args:
        pairs: of one model.
        run: runs the model over the calibration samples, any number at once; each has a range of its own, as deployed.

    Returns:
        The chosen alpha by pair; those that are better as they were are left out.
    """
    seen = _observe({linear for pair in pairs for linear in pair.consumers}, run)
    chosen = {}
    for pair in pairs:
        calls = [call for linear in pair.consumers for call in seen[linear]]
        candidates = {alpha: _scales(calls, pair.consumers, alpha) for alpha in ALPHAS}
        errors = {alpha: _error(pair, scale_I, seen) for alpha, scale_I in candidates.items()}
        best = min(ALPHAS, key=errors.__getitem__)
        if errors[best] < _error(pair, torch.ones_like(candidates[best]), seen):
            _apply(pair, candidates[best])
            chosen[pair.name] = best
    return chosen


def _observe(linears: set[nn.Linear], run: Callable[[], object]) -> dict[nn.Module, list[Seen]]:
    """What each layer is given, call by call."""
    seen: dict[nn.Module, list[Seen]] = defaultdict(list)

    def see(linear: nn.Module, inputs: tuple[Tensor]) -> None:
        x_BTI = inputs[0].flatten(1, -2) if inputs[0].ndim > 2 else inputs[0][:, None]
        smallest, largest = x_BTI.amin(dim=1, keepdim=True), x_BTI.amax(dim=1, keepdim=True)
        seen[linear].append(Seen(smallest, largest, _some(x_BTI, ROWS, dim=1)))

    handles = [linear.register_forward_pre_hook(see) for linear in linears]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _scales(calls: Sequence[Seen], consumers: Sequence[nn.Linear], alpha: float) -> Tensor:
    """(I,) s_j; a channel that is always 0, or never read, keeps its size."""
    largest_I = torch.cat([torch.maximum(call.largest, -call.smallest) for call in calls]).amax(dim=(0, 1))
    weight_I = torch.stack([linear.weight.abs().amax(dim=0) for linear in consumers]).amax(dim=0)
    known_I = (largest_I > 0) & (weight_I > 0)
    scale_I = torch.where(known_I, largest_I**alpha / weight_I.clamp(min=1e-12) ** (1 - alpha), 1.0)
    return torch.where(known_I, scale_I / scale_I[known_I].log().mean().exp(), 1.0)


def _error(pair: ScalePair, scale_I: Tensor, seen: dict[nn.Module, list[Seen]]) -> float:
    """Squared error of the int8 layers' outputs, of those rows and outputs that are looked at."""
    error = 0.0
    for linear in pair.consumers:
        weight_OI = _some(linear.weight, OUTPUTS, dim=0)
        rounded_OI = round_weight(weight_OI * scale_I)
        for call in seen[linear]:
            smallest_B11 = (call.smallest / scale_I).amin(dim=-1, keepdim=True)
            largest_B11 = (call.largest / scale_I).amax(dim=-1, keepdim=True)
            rounded_BRI = round_activation(call.rows / scale_I, smallest_B11, largest_B11)
            error += (rounded_BRI @ rounded_OI.T - call.rows @ weight_OI.T).square().sum().item()
    return error


def _some(x: Tensor, count: int, dim: int) -> Tensor:
    """At most so many entries of a dimension, evenly spread."""
    size = x.shape[dim]
    return x.index_select(dim, torch.arange(0, size, -(-size // count)))


def _apply(pair: ScalePair, scale_I: Tensor) -> None:
    for producer in pair.producers:
        producer.div_(scale_I.reshape(-1, *[1] * (producer.ndim - 1)))
    for linear in pair.consumers:
        linear.weight.mul_(scale_I)
