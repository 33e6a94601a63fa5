"""Weights that anyone can draw again, for an implementation that is not installed here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers by name, in order of names: scales near 1, all else near 0."""
    generator = np.random.default_rng(0)
    weights = {}
    for name in sorted(shapes):
        values = 0.03 * generator.standard_normal(shapes[name], np.float32)
        is_scale = name.endswith(".weight") and len(shapes[name]) == 1
        weights[name] = torch.from_numpy(np.asarray(values + is_scale, np.float32))
    return weights


def pixels(size: int) -> Tensor:
    """Two images, (2, 3, size, size) float32."""
    return torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, size, size), np.float32))


def token_ids(length: int, vocabulary: int) -> Tensor:
    """Three texts, (3, length) int64."""
    return torch.from_numpy(np.random.default_rng(2).integers(0, vocabulary, (3, length)))
