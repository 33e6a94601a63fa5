"""Any picture to 8-bit RGB, band by band, so that intermediate copies stay small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND_PIXELS = 2**20


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, transparency laid on white, 16 bits scaled to 8; the picture itself where it is so already."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    peak = max((float(_grey(band).max()) for _, band in bands(image)), default=0.0) if image.mode in ("I", "F") else 0
    rgb = Image.new("RGB", image.size, "white")
    for top, band in bands(image):
        if image.mode.startswith("I") or image.mode == "F":
            band = _to_8_bit(band, peak)
        if {"A", "a"} & {*band.getbands()} or band.info.get("transparency") is not None:
            rgba = band.convert("RGBA")
            rgb.paste(rgba, (0, top), mask=rgba)
        else:
            rgb.paste(band.convert("RGB"), (0, top))
    return rgb


def band_rows(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of the bands of a picture (width, height)."""
    width, height = size
    rows = max(BAND_PIXELS // width, 1)
    for top in range(0, height, rows):
        yield top, min(rows, height - top)


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, picture) of each."""
    for top, rows in band_rows(image.size):
        yield top, image.crop((0, top, image.width, top + rows))


def _grey(image: Image.Image) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # signalling NaNs of a damaged file
        return np.nan_to_num(np.asarray(image).astype(np.float64))


def _to_8_bit(image: Image.Image, peak: float) -> Image.Image:
    """Grey levels of 16 bits (mode I;16 and what Pillow widens to I), of 32-bit floats (F), or already of 8 bits."""
    scale = (
        255.0 if image.mode == "F" and peak <= 1 else 1 / 257 if peak > 255 or image.mode.startswith("I;16") else 1.0
    )
    return Image.fromarray(np.clip(np.rint(_grey(image) * scale), 0, 255).astype(np.uint8))
