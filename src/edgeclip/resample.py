"""A window of a bicubic resize, with the bits of Pillow's own, without computing the rest.

A picture of 1x5000 pixels, resized to a shorter edge of 224, has 250 million pixels, of which a crop keeps 50,000.
Pillow can resize a box only at single precision; here the arithmetic of its 8-bit path (fixed-point weights of 22 bits,
one rounding a pass, horizontal pass first) is repeated for the crop alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PRECISION_BITS = 32 - 8 - 2


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5, evaluated in Pillow's order of operations."""
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _weights(size_in: int, size_out: int, position: int) -> tuple[int, NDArray[np.int64]]:
    """First input pixel and fixed-point weights of one output pixel."""
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    center = (position + 0.5) * scale
    first = max(int(center - support + 0.5), 0)
    last = min(int(center + support + 0.5), size_in)
    weights = _bicubic((np.arange(first, last, dtype=np.float64) - center + 0.5) * (1.0 / stretch))
    weights = weights / np.cumsum(weights)[-1]  # a running sum, as in C, not NumPy's pairwise one
    fixed = np.trunc(weights * (1 << PRECISION_BITS) + np.where(weights < 0, -0.5, 0.5))
    return first, fixed.astype(np.int64)


def _source(size_in: int, size_out: int, start: int, extent: int) -> tuple[int, int]:
    """The input pixels, from and to, that output pixels start .. start + extent are made of."""
    if size_in == size_out:
        return start, start + extent
    last, weights = _weights(size_in, size_out, start + extent - 1)
    return _weights(size_in, size_out, start)[0], last + len(weights)


def _pass(
    pixels: NDArray[np.uint8], offset: int, size_in: int, size_out: int, start: int, extent: int
) -> NDArray[np.uint8]:
    """Resize axis 0 of (N, M, 3) uint8 to rows start .. start + extent of size_out; `pixels` begin at row `offset`."""
    if size_in == size_out:
        return pixels
    result = np.empty((extent, *pixels.shape[1:]), np.uint8)
    for row in range(extent):
        first, weights = _weights(size_in, size_out, start + row)
        rows = pixels[first - offset : first - offset + len(weights)]
        total = np.tensordot(weights, rows.astype(np.int64), axes=1)
        result[row] = np.clip((total + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS, 0, 255)
    return result


def bicubic_window(
    image: Image.Image, *, size: tuple[int, int], start: tuple[int, int], extent: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resize and cut in one go.

    Args:
        image: RGB; no more of it is copied than the window needs.
        size: (width, height) of the whole resize.
        start: (x, y) of the window in the resized picture.
        extent: (width, height) of the window.

    Returns:
        (height, width, 3) uint8, equal to `Image.resize(size, BICUBIC)` cut to the window.
    """
    left, right = _source(image.width, size[0], start[0], extent[0])
    top, bottom = _source(image.height, size[1], start[1], extent[1])
    pixels = np.asarray(image.crop((left, top, right, bottom)))
    across = _pass(pixels.transpose(1, 0, 2), left, image.width, size[0], start[0], extent[0])
    return _pass(across.transpose(1, 0, 2), top, image.height, size[1], start[1], extent[1])
