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
class Joint:
    """Where a channel's size can be moved: `producers` (I, ...) make the channels, `consumers` read them."""

    name: str
    producers: tuple[Tensor, ...]
    consumers: tuple[nn.Linear, ...]


@torch.no_grad()
def equalize(joints: Sequence[Joint], run: Callable[[], object]) -> dict[str, float]:
    """Scale the channels of every joint in place, by the best of `ALPHAS` or not at all.

    Args:
        joints: of one model.
        run: runs the model over the calibration samples, one call each.

    Returns:
        The chosen alpha by joint; those that are better as they were are left out.
    """
    largest = _largest_inputs(joints, run)
    candidates = {
        joint.name: {alpha: _scales(largest[joint.name], joint.consumers, alpha) for alpha in ALPHAS}
        for joint in joints
    }
    errors = _errors(joints, candidates, run)
    chosen = {}
    for joint in joints:
        alpha = min(errors[joint.name], key=lambda alpha: errors[joint.name][alpha])
        if alpha is not None:
            _apply(joint, candidates[joint.name][alpha])
            chosen[joint.name] = alpha
    return chosen


def _scales(largest_I: Tensor, consumers: Sequence[nn.Linear], alpha: float) -> Tensor:
    """(I,) s_j; a channel that is always 0, or never read, keeps its size."""
    weight_I = torch.stack([linear.weight.abs().amax(dim=0) for linear in consumers]).amax(dim=0)
    known_I = (largest_I > 0) & (weight_I > 0)
    scale_I = torch.where(known_I, largest_I**alpha / weight_I.clamp(min=1e-12) ** (1 - alpha), 1.0)
    return torch.where(known_I, scale_I / scale_I[known_I].log().mean().exp(), 1.0)


def _apply(joint: Joint, scale_I: Tensor) -> None:
    for producer in joint.producers:
        producer.div_(scale_I.reshape(-1, *[1] * (producer.ndim - 1)))
    for linear in joint.consumers:
        linear.weight.mul_(scale_I)


@contextmanager
def _watched(joints: Sequence[Joint], see: Callable[[Joint, nn.Linear, Tensor], None]) -> Iterator[None]:
    """Call `see` with every input of every consumer."""

    def watch(joint: Joint, linear: nn.Linear) -> torch.utils.hooks.RemovableHandle:
        return linear.register_forward_pre_hook(lambda module, inputs: see(joint, linear, inputs[0]))

    handles = [watch(joint, linear) for joint in joints for linear in joint.consumers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _largest_inputs(joints: Sequence[Joint], run: Callable[[], object]) -> dict[str, Tensor]:
    largest: dict[str, Tensor] = {}

    def see(joint: Joint, linear: nn.Linear, x: Tensor) -> None:
        seen_I = x.abs().flatten(0, -2).amax(dim=0)
        largest[joint.name] = torch.maximum(largest[joint.name], seen_I) if joint.name in largest else seen_I

    with _watched(joints, see):
        run()
    return largest


def _errors(
    joints: Sequence[Joint], candidates: dict[str, dict[float, Tensor]], run: Callable[[], object]
) -> dict[str, dict[float | None, float]]:
    """Squared error of the int8 layer's output by alpha; None is the layer as it is."""
    errors: dict[str, dict[float | None, float]] = {
        joint.name: dict.fromkeys((None, *candidates[joint.name]), 0.0) for joint in joints
    }
    weights = {
        (id(linear), alpha): fake_quant_weight(linear.weight * scale)
        for joint in joints
        for linear in joint.consumers
        for alpha, scale in _all_scales(candidates[joint.name])
    }

    def see(joint: Joint, linear: nn.Linear, x: Tensor) -> None:
        exact = x @ linear.weight.T
        for alpha, scale in _all_scales(candidates[joint.name]):
            rounded = fake_quant_activation(x / scale) @ weights[id(linear), alpha].T
            errors[joint.name][alpha] += (rounded - exact).square().sum().item()

    with _watched(joints, see):
        run()
    return errors


def _all_scales(candidates: dict[float, Tensor]) -> list[tuple[float | None, Tensor]]:
    return [(None, torch.ones(())), *candidates.items()]
