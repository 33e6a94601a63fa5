"""What int8 means in a bundle: the arithmetic of the deployed graphs, in NumPy.

    weights of a Linear     int8, symmetric, one scale per output channel, 7 of the 8 bits
    activations of a Linear uint8, asymmetric, one scale and zero point per call, from its smallest and largest value
    token embedding         int8, symmetric, one scale per row, stored so and multiplied in float
    pooled projection       int8, symmetric, one scale per output, stored so and multiplied in float
    all else                float32: normalisations, softmax, activation functions, residuals

Why 7 bits: processors without VNNI or dot products multiply bytes with `vpmaddubsw`, which adds two products in 16
bits. 2 * 255 * 128 does not fit and saturates to a wrong sum without a word; 2 * 255 * 64 = 32640 fits. So the same
bundle gives the same answer on every processor.

Shape legend: O output channels, I input channels, V rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WEIGHT_LIMIT = 64
ROW_LIMIT = 127
ACTIVATION_LEVELS = 255


def weight_scale(weight_OI: NDArray[np.float32], limit: int = WEIGHT_LIMIT) -> NDArray[np.float32]:
    """(O, I) -> (O,) float32, what one step of each row is worth; 1 for a row of zeros."""
    largest_O = np.abs(weight_OI).max(axis=1)
    return np.where(largest_O > 0, largest_O / limit, 1).astype(np.float32)


def quantize_rows(
    weight_OI: NDArray[np.float32], limit: int = WEIGHT_LIMIT
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 by row.

    Args:
        weight_OI: (O, I) float32.
        limit: the largest magnitude; `WEIGHT_LIMIT` for what is multiplied as int8, `ROW_LIMIT` for what is stored.

    Returns:
        (O, I) int8 and (O,) float32, whose product approximates the weight to half a step.
    """
    scale_O = weight_scale(weight_OI, limit)
    return np.clip(np.rint(weight_OI / scale_O[:, None]), -limit, limit).astype(np.int8), scale_O
