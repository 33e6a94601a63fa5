"""Which layers int8 costs too much, from few passes over a tower.

The error of an int8 layer moves the embedding by about J d, where d is the error of the layer's output and J the
embedding's derivative by that output. For unit vectors 1 - cosine is |J d|^2 / 2, and the mean of (v . J d)^2 over
random signs v is |J d|^2 (Hutchinson 1989). A factor g on d, which is 0, makes of v . J d a derivative by g alone: one
backward pass gives it for every layer and sample at once.

With other directions v the same pass measures more. The ranking of M others by a sample is p = softmax(scale cosines);
a small move of its embedding changes p by a Kullback-Leibler divergence of scale^2 / 2 times the variance, by p, of
what the others' cosines move. That is again the mean of (v . J d)^2 / 2, where v = scale sum_j sqrt(p_j) e_j (t_j - t),
of random signs e, the others' embeddings t_j and their mean t by p.

Shape legend: N samples of all batches, B of one batch, E embedding size, M others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.quantize.fake_quant import FakeQuantLinear
from edgeclip.quantize.pixels import PATCH_EMBEDDING, FakeQuantPatches, PixelBytes

PROBES = 6
"""Random directions a sample; of 16 samples, a layer's loss is then known to a seventh."""


@contextmanager
def replaced(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within, the named layers are these."""
    originals = {name: model.get_submodule(name) for name in layers}
    try:
        for name, layer in layers.items():
            model.set_submodule(name, layer)
        yield
    finally:
        for name, layer in originals.items():
            model.set_submodule(name, layer)


@contextmanager
def fake_quantized(model: nn.Module, names: Iterable[str], pixels: PixelBytes | None = None) -> Iterator[None]:
    """Within, the named Linear layers compute what int8 computes; see `as_int8`."""
    with replaced(model, as_int8(model, names, pixels)):
        yield


def as_int8(model: nn.Module, names: Iterable[str], pixels: PixelBytes | None = None) -> dict[str, nn.Module]:
    """What the named Linear layers are in int8; with `pixels` a tower of images, whose first is given them."""
    twins: dict[str, nn.Module] = {name: FakeQuantLinear(_linear(model, name)) for name in names}
    if pixels is not None:
        first = {name for name in twins if name.endswith(PATCH_EMBEDDING)}
        twins |= {name: FakeQuantPatches(_linear(model, name), pixels) for name in first}
    return twins


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)  # noqa: S101 - for the type checker
    return layer


class _Gated(nn.Module):
    """A Linear layer and g times the error of its int8 twin, with g = 0 for each sample of a batch."""

    def __init__(self, exact: nn.Linear, rounded: nn.Module, B: int) -> None:
        super().__init__()
        self.exact, self.rounded = exact, rounded
        self.gate_B11 = torch.zeros(B, 1, 1, requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.exact(x)
        return y + self.gate_B11 * (self.rounded(x) - y).detach()


Directions = Callable[[Tensor, torch.Generator], Tensor]
"""Random directions (B, E) for embeddings (B, E)."""


def all_directions(embeds_BE: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs: what is measured is 1 - cosine."""
    return torch.randint(0, 2, embeds_BE.shape, generator=generator) * 2.0 - 1


def ranking_directions(others_ME: Tensor, logit_scale: float) -> Directions:
    """Those that change the ranking of `others_ME`: what is measured is its divergence, in nats."""

    def draw(embeds_BE: Tensor, generator: torch.Generator) -> Tensor:
        p_BM = (logit_scale * embeds_BE.detach() @ others_ME.T).softmax(dim=-1)
        weights_BM = p_BM.sqrt() * (torch.randint(0, 2, p_BM.shape, generator=generator) * 2.0 - 1)
        return logit_scale * (weights_BM @ others_ME - weights_BM.sum(dim=-1, keepdim=True) * (p_BM @ others_ME))

    return draw


def sensitivity(model: nn.Module, int8_layers: Mapping[str, nn.Module], batches: Sequence[Tensor]) -> dict[str, float]:
    """What 1 - mean cosine of the embeddings would be with one layer alone in int8; arguments as of `sensitivities`."""
    return sensitivities(model, int8_layers, batches, [all_directions])[0]


def sensitivities(
    model: nn.Module,
    int8_layers: Mapping[str, nn.Module],
    batches: Sequence[Tensor],
    measures: Sequence[Directions],
) -> list[dict[str, float]]:
    """What one layer alone in int8 would change, to first order, by several measures from one pass.

    Args:
        model: a tower.
        int8_layers: some of its Linear layers, as int8.
        batches: what it embeds as (B, E) of unit length.
        measures: what counts as a change.
    """
    generators = [torch.Generator().manual_seed(0) for _ in measures]
    losses = [dict.fromkeys(int8_layers, 0.0) for _ in measures]
    for batch in batches:
        gated = {name: _Gated(_linear(model, name), layer, len(batch)) for name, layer in int8_layers.items()}
        gates = [layer.gate_B11 for layer in gated.values()]
        with torch.enable_grad(), replaced(model, gated):
            embeds_BE = model(batch)
        for directions, generator, found in zip(measures, generators, losses, strict=True):
            for _ in range(PROBES):
                moves = torch.autograd.grad(embeds_BE, gates, directions(embeds_BE, generator), retain_graph=True)
                for name, move_B11 in zip(gated, moves, strict=True):
                    found[name] += move_B11.square().sum().item() / 2
    samples = PROBES * sum(map(len, batches))
    return [{name: loss / samples for name, loss in found.items()} for found in losses]


@torch.no_grad()
def choose_float_layers(
    model: nn.Module,
    names: Sequence[str],
    batches: Sequence[Tensor],
    exact_NE: Tensor,
    *,
    min_cosine: float,
    at_most: int,
    pixels: PixelBytes | None = None,
) -> list[str]:
    """Leave the most sensitive layers in float until the embeddings are close enough to `exact_NE`.

    Args:
        model: a tower.
        names: its Linear layers that may be int8.
        batches: what it embeds as (B, E) of unit length, each sample as if alone.
        exact_NE: what the embeddings of all batches should be.
        min_cosine: how close the mean must be.
        at_most: how many layers may stay in float, 1 or more.
        pixels: of a tower of images, see `as_int8`.

    Returns:
        The layers to leave in float, most sensitive first.
    """
    int8_layers = as_int8(model, names, pixels)

    def is_close(float_layers: Sequence[str]) -> bool:
        with replaced(model, {name: layer for name, layer in int8_layers.items() if name not in float_layers}):
            return mean_cosine(embed(model, batches), exact_NE) >= min_cosine

    if is_close([]):
        return []
    losses = sensitivity(model, int8_layers, batches)
    order = sorted(names, key=lambda name: -losses[name])
    few, enough = 0, at_most  # the fewest that are enough, halving what lies between
    while enough - few > 1:
        count = (few + enough) // 2
        few, enough = (few, count) if is_close(order[:count]) else (count, enough)
    return order[:enough]


@torch.no_grad()
def embed(model: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """The embeddings of all batches, (N, E)."""
    return torch.cat([model(batch) for batch in batches])


def mean_cosine(embeds_NE: Tensor, others_NE: Tensor) -> float:
    """Mean cosine of corresponding rows."""
    return functional.cosine_similarity(embeds_NE, others_NE, dim=-1).mean().item()
