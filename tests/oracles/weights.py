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


def lively(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers by name under which every part of a network counts: matrices that keep sizes, scales that vary.

    Variances are positive, and what scales a branch is large enough to be seen.
    """
    generator = np.random.default_rng(0)
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = generator.standard_normal(shape, np.float32)
        if name.endswith("running_var"):
            values = 1.5 + 1.5 * np.abs(values)
        elif name.endswith(("gamma", "layer_scale")):
            values = 0.3 + 0.1 * values
        elif name.endswith(".weight") and len(shape) == 1:
            values = 1 + 0.3 * values
        elif len(shape) > 1:
            values = values / np.sqrt(np.prod(shape[1:]))
            if shape[1] == 1 and len(shape) == 4:  # of one channel: most of what it sees stays as it is
                values[:, :, shape[2] // 2, shape[3] // 2] += 1
        else:
            values = 0.1 * values
        weights[name] = torch.from_numpy(np.asarray(values, np.float32))
    return weights


def texts_with_ends(length: int, vocabulary: int) -> Tensor:
    """Three texts of three lengths, (3, length) int64: the highest id ends each, and 0 follows."""
    ids = np.random.default_rng(2).integers(1, vocabulary - 1, (3, length))
    for row, end in zip(ids, (3, length // 2, length - 1), strict=True):
        row[end], row[end + 1 :] = vocabulary - 1, 0
    return torch.from_numpy(ids)
