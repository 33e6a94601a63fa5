"""Branches that a network was trained with, folded into the one convolution that computes the same.

Everything here is linear, and computed in float64. A batch normalisation of running mean m and variance v is
x -> (x - m) g / sqrt(v + eps) + b; a convolution before it takes the factor into its kernels. A kernel of one place,
and a branch without a convolution, are larger kernels that are 0 but in the middle (Ding et al. 2021, RepVGG,
section 3.3).

Shape legend: O outputs, I inputs of a group, K side of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from edgeclip.checkpoint.keys import Rule

NORM_EPS = 1e-5
"""PyTorch's, which every batch normalisation of these towers has."""
_NORM = ("weight", "bias", "running_mean", "running_var")


class Shape(NamedTuple):
    """A convolution's kernels (O, I, H, W)."""

    outputs: int
    inputs: int
    height: int
    width: int


class Folded(NamedTuple):
    """Kernels (O, I, H, W) and their bias (O,)."""

    kernels: Tensor
    bias: Tensor


class Branch(NamedTuple):
    """Tensors of a file, and the convolution that they make: names and shapes in the order that `fold` has them."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    fold: Callable[[Sequence[Tensor]], Folded]


def convolution(name: str, shape: Shape) -> Branch:
    """One that was trained as it is, with a bias."""
    return Branch((f"{name}.weight", f"{name}.bias"), (tuple(shape), shape[:1]), lambda tensors: Folded(*tensors))


def normalised(name: str, shape: Shape) -> Branch:
    """One without a bias, and a batch normalisation of what it gives."""
    names = (f"{name}.conv.weight", *(f"{name}.bn.{part}" for part in _NORM))

    def fold(tensors: Sequence[Tensor]) -> Folded:
        factor_O, shift_O = _affine(tensors[1:])
        return Folded(tensors[0] * factor_O[:, None, None, None], shift_O)

    return Branch(names, (tuple(shape), *[shape[:1]] * len(_NORM)), fold)


def normalisation(name: str, shape: Shape) -> Branch:
    """A batch normalisation alone, as a convolution of a shape whose inputs are its outputs."""

    def fold(tensors: Sequence[Tensor]) -> Folded:
        factor_O, shift_O = _affine(tensors)
        return Folded(identity(shape) * factor_O[:, None, None, None], shift_O)

    return Branch(tuple(f"{name}.{part}" for part in _NORM), (shape[:1],) * len(_NORM), fold)


def identity(shape: Shape) -> Tensor:
    """The kernels that give what they are given."""
    outputs, inputs, height, width = shape
    kernels = torch.zeros(outputs, inputs, height, width, dtype=torch.float64)
    at = torch.arange(outputs)
    kernels[at, at % inputs, height // 2, width // 2] = 1
    return kernels


def summed(branches: Sequence[Branch], shape: Shape) -> Branch:
    """Several, whose outputs are added up."""

    def fold(tensors: Sequence[Tensor]) -> Folded:
        parts = [branch.fold(own) for branch, own in zip(branches, _divided(tensors, branches), strict=True)]
        return Folded(sum(_grown(part.kernels, shape) for part in parts), sum(part.bias for part in parts))  # type: ignore[arg-type]

    return Branch(*_all(branches), fold)


def mixed(mixer: Branch, norm: Branch, scale: str, scale_shape: tuple[int, ...], shape: Shape) -> Branch:
    """X + scale (mixer(x) - norm(x)): FastViT's RepMixer, equation 2."""

    def fold(tensors: Sequence[Tensor]) -> Folded:
        ours, theirs, (scale_O,) = _divided(tensors, [mixer, norm, 1])
        (kernels, bias_O), (of_norm, norm_bias_O), scale_O = mixer.fold(ours), norm.fold(theirs), scale_O.flatten()
        return Folded(
            identity(shape) + scale_O[:, None, None, None] * (kernels - of_norm), scale_O * (bias_O - norm_bias_O)
        )

    names, shapes = _all([mixer, norm])
    return Branch((*names, scale), (*shapes, scale_shape), fold)


def added(branch: Branch, shape: Shape) -> Branch:
    """X + what a branch makes of it."""
    fold = branch.fold
    return branch._replace(fold=lambda tensors: Folded(identity(shape) + fold(tensors)[0], fold(tensors)[1]))


def scaled(branch: Branch, scale: str, scale_shape: tuple[int, ...]) -> Branch:
    """What a branch gives, each channel times a scale of its own."""

    def fold(tensors: Sequence[Tensor]) -> Folded:
        (kernels, bias_O), scale_O = branch.fold(tensors[:-1]), tensors[-1].flatten()
        return Folded(kernels * scale_O.view(-1, *[1] * (kernels.ndim - 1)), bias_O * scale_O)

    return Branch((*branch.names, scale), (*branch.shapes, scale_shape), fold)


def rules(ours: str, branch: Branch) -> list[Rule]:
    """A convolution's or Linear's weight and bias, both from all tensors of a branch; not to be written back."""

    def weight(tensors: Sequence[Tensor]) -> Tensor:
        return branch.fold([tensor.double() for tensor in tensors]).kernels.float()

    def bias(tensors: Sequence[Tensor]) -> Tensor:
        return branch.fold([tensor.double() for tensor in tensors]).bias.float()

    def shapes(_: Tensor) -> Sequence[Tensor]:
        return [torch.empty(shape, device="meta") for shape in branch.shapes]

    return [Rule(f"{ours}.weight", branch.names, weight, shapes), Rule(f"{ours}.bias", branch.names, bias, shapes)]


def pointwise(ours: str, branch: Branch) -> list[Rule]:
    """The same for a convolution of one place, as the Linear (O, I) that it is."""
    fold = branch.fold
    return rules(ours, branch._replace(fold=lambda t: Folded(fold(t).kernels.flatten(1), fold(t).bias)))


def affine(ours: str, name: str) -> list[Rule]:
    """A batch normalisation as a scale and shift of each channel."""

    def part(index: int) -> Callable[[Sequence[Tensor]], Tensor]:
        return lambda tensors: _affine([tensor.double() for tensor in tensors])[index].float()

    names = tuple(f"{name}.{part}" for part in _NORM)
    return [
        Rule(f"{ours}.{which}", names, part(index), lambda tensor: [tensor] * len(_NORM))
        for index, which in enumerate(("weight", "bias"))
    ]


def _affine(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Factor and shift (O,) of a batch normalisation."""
    weight_O, bias_O, mean_O, var_O = tensors
    factor_O = weight_O / (var_O + NORM_EPS).sqrt()
    return factor_O, bias_O - mean_O * factor_O


def _grown(kernels: Tensor, shape: Shape) -> Tensor:
    """Smaller kernels in the middle of larger ones."""
    rows, columns = ((large - small) // 2 for large, small in zip(shape[2:], kernels.shape[2:], strict=True))
    return functional.pad(kernels, [columns, columns, rows, rows])


def _all(branches: Sequence[Branch]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    names = tuple(name for branch in branches for name in branch.names)
    return names, tuple(shape for branch in branches for shape in branch.shapes)


def _divided(tensors: Sequence[Tensor], branches: Sequence[Branch | int]) -> list[Sequence[Tensor]]:
    """The tensors of each branch, or so many."""
    parts, start = [], 0
    for branch in branches:
        count = branch if isinstance(branch, int) else len(branch.names)
        parts.append(tensors[start : start + count])
        start += count
    return parts
