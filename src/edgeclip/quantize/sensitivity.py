"""How much each int8 layer costs, measured: the cosine between a tower's embeddings with and without it.

Shape legend: N calibration samples, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.quantize.fake_quant import FakeQuantLinear


@contextmanager
def fake_quantized(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Within, the named Linear layers compute what int8 computes."""
    originals: dict[str, nn.Linear] = {}
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)  # noqa: S101 - names come from linear_layers
        originals[name] = layer
        model.set_submodule(name, FakeQuantLinear(layer))
    try:
        yield
    finally:
        for name, layer in originals.items():
            model.set_submodule(name, layer)


@torch.no_grad()
def sensitivity(model: nn.Module, names: Iterable[str], run: Callable[[], Tensor]) -> dict[str, float]:
    """1 - mean cosine of the embeddings when one layer alone is int8, for each layer.

    Args:
        model: a tower.
        names: its Linear layers.
        run: (N, E) the embeddings of the calibration samples, one call each, as deployed.
    """
    exact_NE = run()
    losses = {}
    for name in names:
        with fake_quantized(model, [name]):
            losses[name] = 1 - mean_cosine(run(), exact_NE)
    return losses


@torch.no_grad()
def choose_float_layers(
    model: nn.Module,
    names: list[str],
    run: Callable[[], Tensor],
    exact_NE: Tensor,
    *,
    min_cosine: float,
    at_most: int,
) -> tuple[list[str], float]:
    """Leave the most sensitive layers in float until the embeddings are close enough to `exact_NE`.

    Returns:
        The layers to leave in float, most sensitive first, and the mean cosine then.
    """

    def cosine_without(count: int) -> float:
        with fake_quantized(model, [name for name in names if name not in order[:count]]):
            return mean_cosine(run(), exact_NE)

    order: list[str] = []
    cosine = cosine_without(0)
    if cosine >= min_cosine:
        return [], cosine
    losses = sensitivity(model, names, run)
    order = sorted(names, key=lambda name: -losses[name])
    for count in range(1, at_most + 1):
        cosine = cosine_without(count)
        if cosine >= min_cosine:
            return order[:count], cosine
    return order[:at_most], cosine


def mean_cosine(embeds_NE: Tensor, others_NE: Tensor) -> float:
    """Mean cosine of corresponding rows."""
    return functional.cosine_similarity(embeds_NE, others_NE, dim=-1).mean().item()
