"""Move the size of large channels from activations into weights, where it costs less: an exact rewrite for int8.

An activation channel j that is divided by s_j before a Linear whose column j is multiplied by s_j leaves the layer's
output as it is. s_j = max|X_j|^a / max|W_j|^(1-a) (Xiao et al. 2023, SmoothQuant, equation 4); `a` is searched for
each layer by the error that the int8 layer would make, and 0 scaling is one of the candidates, so that a layer is
never made worse on what was seen.

Shape legend: O output channels, I input channels; "..." the rows of one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeclip.quantize.fake_quant import fake_quant_activation, fake_quant_weight

ALPHAS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class ScalePair:
    """Where a channel's size can be moved: `producers` (I, ...) make the channels, `consumers` read them."""

    name: str
    producers: tuple[Tensor, ...]
    consumers: tuple[nn.Linear, ...]


@torch.no_grad()
def equalize(pairs: Sequence[ScalePair], run: Callable[[], object]) -> dict[str, float]:
    """Scale the channels of every pair in place, by the best of `ALPHAS` or not at all.

    Args:
        pairs: of one model.
        run: runs the model over the calibration samples, one call each.

    Returns:
        The chosen alpha by pair; those that are better as they were are left out.
    """
    largest = _largest_inputs(pairs, run)
    candidates = {
        pair.name: {alpha: _scales(largest[pair.name], pair.consumers, alpha) for alpha in ALPHAS} for pair in pairs
    }
    errors = _errors(pairs, candidates, run)
    chosen = {}
    for pair in pairs:
        alpha = min(errors[pair.name], key=lambda alpha: errors[pair.name][alpha])
        if alpha is not None:
            _apply(pair, candidates[pair.name][alpha])
            chosen[pair.name] = alpha
    return chosen


def _scales(largest_I: Tensor, consumers: Sequence[nn.Linear], alpha: float) -> Tensor:
    """(I,) s_j; a channel that is always 0, or never read, keeps its size."""
    weight_I = torch.stack([linear.weight.abs().amax(dim=0) for linear in consumers]).amax(dim=0)
    known_I = (largest_I > 0) & (weight_I > 0)
    scale_I = torch.where(known_I, largest_I**alpha / weight_I.clamp(min=1e-12) ** (1 - alpha), 1.0)
    return torch.where(known_I, scale_I / scale_I[known_I].log().mean().exp(), 1.0)


def _apply(pair: ScalePair, scale_I: Tensor) -> None:
    for producer in pair.producers:
        producer.div_(scale_I.reshape(-1, *[1] * (producer.ndim - 1)))
    for linear in pair.consumers:
        linear.weight.mul_(scale_I)


@contextmanager
def _watched(pairs: Sequence[ScalePair], see: Callable[[ScalePair, nn.Linear, Tensor], None]) -> Iterator[None]:
    """Call `see` with every input of every consumer."""

    def watch(pair: ScalePair, linear: nn.Linear) -> torch.utils.hooks.RemovableHandle:
        return linear.register_forward_pre_hook(lambda module, inputs: see(pair, linear, inputs[0]))

    handles = [watch(pair, linear) for pair in pairs for linear in pair.consumers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _largest_inputs(pairs: Sequence[ScalePair], run: Callable[[], object]) -> dict[str, Tensor]:
    largest: dict[str, Tensor] = {}

    def see(pair: ScalePair, linear: nn.Linear, x: Tensor) -> None:
        seen_I = x.abs().flatten(0, -2).amax(dim=0)
        largest[pair.name] = torch.maximum(largest[pair.name], seen_I) if pair.name in largest else seen_I

    with _watched(pairs, see):
        run()
    return largest


def _errors(
    pairs: Sequence[ScalePair], candidates: dict[str, dict[float, Tensor]], run: Callable[[], object]
) -> dict[str, dict[float | None, float]]:
    """Squared error of the int8 layer's output by alpha; None is the layer as it is."""
    errors: dict[str, dict[float | None, float]] = {
        pair.name: dict.fromkeys((None, *candidates[pair.name]), 0.0) for pair in pairs
    }
    weights = {
        (id(linear), alpha): fake_quant_weight(linear.weight * scale)
        for pair in pairs
        for linear in pair.consumers
        for alpha, scale in _all_scales(candidates[pair.name])
    }

    def see(pair: ScalePair, linear: nn.Linear, x: Tensor) -> None:
        exact = x @ linear.weight.T
        for alpha, scale in _all_scales(candidates[pair.name]):
            rounded = fake_quant_activation(x / scale) @ weights[id(linear), alpha].T
            errors[pair.name][alpha] += (rounded - exact).square().sum().item()

    with _watched(pairs, see):
        run()
    return errors


def _all_scales(candidates: dict[float, Tensor]) -> list[tuple[float | None, Tensor]]:
    return [(None, torch.ones(())), *candidates.items()]
