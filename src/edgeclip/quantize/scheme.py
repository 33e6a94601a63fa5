"""What int8 means in a bundle: the arithmetic of the deployed graphs, in NumPy.

    weights of a Linear     int8, symmetric, one scale per output channel, 8 bits as far as pairs of them allow
    activations of a Linear uint8, asymmetric, one scale and zero point per call, from its smallest and largest value
    patches of an image     uint8, the bytes that its pixels were, see `quantize.pixels`
    token embedding         int8, symmetric, one scale per row, stored so and multiplied in float
    pooled projection       int16, symmetric, one scale per output, stored so and multiplied in float
    position embedding      int16, symmetric, one scale per position, stored so and added in float
    all else                float32: normalisations, softmax, activation functions, residuals

Why pairs: processors without VNNI or dot products multiply bytes with `vpmaddubsw`, which adds the products of two
neighbouring inputs in 16 bits and saturates to a wrong sum without a word (Intel's Software Developer's Manual, volume
2, PMADDUBSW). With activations of up to 255, the weights a and b of inputs 0 and 1, 2 and 3, ... can not where

    255 (a + b) <= 32767 and -255 (a + b) <= 32768, with what is of the other sign counted as 0: |a + b| <= 128

since weights of opposite signs take from each other, and one alone is at most 127. So the same bundle gives the same
answer on every processor. 7-bit weights, at most 64, hold for any pairs, but cost a bit where pairs are smaller.
ONNX Runtime pairs neighbours; that this one does is proved where a bundle is opened, see `runtime.int8_proof`.

Shape legend: O output channels, I input channels, V rows, D columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WEIGHT_LIMIT = 127
TABLE_LIMIT, FINE_LIMIT = 2**7 - 1, 2**15 - 1
"""Of the token embedding, and of the pooled projection and the positions, which are only stored as integers."""
PAIR_LIMIT = 128
"""Of the sum of two neighbouring weights: (2^15 - 1) // 255."""
SLACK = 1 + 2**-20
"""A step is so much larger than need be, so that no pair is rounded beyond its limit: 99.5 and 28.5 to 100 and 29."""
ACTIVATION_LEVELS = 255


def weight_step(weight_OI: NDArray[np.float32]) -> NDArray[np.float32]:
    """(O, I) -> (O,) float32: what one step of each row of a Linear is worth; 1 for a row of zeros."""
    paired = weight_OI.shape[1] // 2 * 2
    sums_OP = weight_OI[:, 0:paired:2] + weight_OI[:, 1:paired:2]
    largest_O = np.abs(weight_OI).max(axis=1) / WEIGHT_LIMIT
    step_O = np.maximum(largest_O, np.abs(sums_OP).max(axis=1, initial=0) / PAIR_LIMIT) * SLACK
    return np.where(step_O > 0, step_O, 1).astype(np.float32)


def stored_step(table_VD: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """(V, D) -> (V,) float32: the same for what is only stored in so many steps, and not multiplied so."""
    largest_V = np.abs(table_VD).max(axis=1)
    return np.where(largest_V > 0, largest_V / limit, 1).astype(np.float32)


def in_steps(weight_OI: NDArray[np.float32], step_O: NDArray[np.float32]) -> NDArray[np.float32]:
    """(O, I) whole numbers, whose product with the steps approximates the weight to half a step."""
    return np.rint(weight_OI / step_O[:, None])
