"""GELU in the order of operations that ONNX Runtime makes one of.

x (1 + erf(x / sqrt 2)) / 2, multiplied from left to right, is fused into one `Gelu` when a graph is opened. The
exporter multiplies (1 + erf) by a half first, which is not: five passes over a tower's widest activations for one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def gelu(x: Tensor) -> Tensor:
    """The same function as `functional.gelu`."""
    return x * (torch.erf(x / math.sqrt(2)) + 1) * 0.5


def rewrite(tower: nn.Module) -> int:
    """Replace the activation of every module that has GELU's.

    Returns:
        How many were replaced.
    """
    found = [module for module in tower.modules() if getattr(module, "activation", None) is functional.gelu]
    for module in found:
        module.activation = gelu  # type: ignore[assignment]  # the same function
    return len(found)
