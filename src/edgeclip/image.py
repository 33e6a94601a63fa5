"""The one image path: file, bytes, picture or array to `pixel_values`, for training, calibration and device alike.

It gives the same bits as transformers' `CLIPImageProcessorPil` for any image that both accept; in addition it honours
the EXIF orientation and scales 16-bit images to 8 bits instead of clipping them.

Shape legend: B batch, H and W pixels of the crop.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError
from edgeclip.resample import bicubic_window

ImageSource: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]

MAX_PIXELS = 120_000_000
"""Largest picture that is decoded; its RGB pixels take 4 bytes each in Pillow."""
WINDOW_FACTOR = 8
"""From this many crops' worth of resized pixels on, only the crop is resampled."""

# What Pillow's decoders are known to raise for damaged files, beside OSError and its own errors.
DECODER_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def open_rgb(source: ImageSource) -> Image.Image:
    """Decode any image to 8-bit RGB, upright, transparency laid on white.

    Args:
        source: path, encoded bytes, Pillow image, or (H, W, 3) / (H, W, 4) / (H, W) uint8 array.

    Raises:
        ImageError: it is missing, damaged, too large, or of an unknown format.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    name = _name(source)
    try:
        if isinstance(source, Image.Image):  # perhaps opened and not yet decoded
            return _to_rgb(source)
        with warnings.catch_warnings():
            # Pillow's own pixel limit warns below ours, and metadata warnings don't concern the pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(
                        f"{name}, a picture of {image.width}x{image.height}",
                        expected=f"at most {MAX_PIXELS // 10**6} megapixels",
                        fix="scale it down first",
                    )
                return _to_rgb(image)
    except DECODER_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split("\n")[0]
        raise ImageError(
            f"{name} cannot be decoded ({reason or type(error).__name__})",
            expected="an intact image in a format that Pillow reads",
            fix="replace or remove it",
        ) from error


def _name(source: str | Path | bytes | Image.Image) -> str:
    if isinstance(source, Image.Image):
        return f"a {source.width}x{source.height} picture"
    return str(source) if isinstance(source, str | Path) else f"{len(source)} bytes"


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    channels_ok = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not channels_ok or 0 in array.shape:
        raise ImageError(
            f"an array of {array.dtype} with shape {array.shape}",
            expected="uint8 of shape (H, W), (H, W, 3) or (H, W, 4)",
            fix="convert it first",
        )
    return Image.fromarray(array)


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey levels of 16 bits (mode I;16 and what Pillow widens to I), of 32-bit floats (F), or already of 8 bits."""
    grey = np.nan_to_num(np.asarray(image).astype(np.float64))
    peak = float(grey.max(initial=0))
    scale = (
        255.0 if image.mode == "F" and peak <= 1 else 1 / 257 if peak > 255 or image.mode.startswith("I;16") else 1.0
    )
    return Image.fromarray(np.clip(np.rint(grey * scale), 0, 255).astype(np.uint8))


def crop_uint8(source: ImageSource, config: PreprocessConfig) -> NDArray[np.uint8]:
    """Decode, resize and crop, leaving 8-bit pixels; `normalize` does the rest.

    Returns:
        (H, W, 3) uint8, of the crop size where there is one.

    Raises:
        ImageError: see `open_rgb`.
    """
    image = open_rgb(source)
    size = _resized_size(image.width, image.height, config)
    crop = config.crop_size
    if crop and config.resample == Image.Resampling.BICUBIC and math.prod(size) > WINDOW_FACTOR * math.prod(crop):
        width, height = size
        window = (_crop_start(width, crop[1]), _crop_start(height, crop[0]))
        extent = (min(crop[1], width), min(crop[0], height))
        pixels = bicubic_window(np.asarray(image), size=size, start=window, extent=extent)
    else:
        pixels = np.asarray(image.resize(size, config.resample) if size != image.size else image)
    return center_crop(pixels, crop) if crop else pixels


def _resized_size(width: int, height: int, config: PreprocessConfig) -> tuple[int, int]:
    """(width, height) after the resize; the longer edge is truncated as transformers and torchvision do."""
    if config.resize_to:
        return config.resize_to[1], config.resize_to[0]
    if config.shortest_edge is None:
        return width, height
    short, long = min(width, height), max(width, height)
    resized_long = int(config.shortest_edge * long / short)
    return (config.shortest_edge, resized_long) if width <= height else (resized_long, config.shortest_edge)


def _crop_start(size: int, crop: int) -> int:
    return max((size - crop) // 2, 0)


def center_crop(pixels: NDArray[np.uint8], crop_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut the middle out, with black around what is smaller than the crop.

    Args:
        pixels: (H, W, 3) uint8.
        crop_size: (height, width).
    """
    for axis, crop in enumerate(crop_size):
        size = pixels.shape[axis]
        if size > crop:
            start = _crop_start(size, crop)
            pixels = pixels[start : start + crop] if axis == 0 else pixels[:, start : start + crop]
        elif size < crop:
            before = (crop - size + 1) // 2
            padding = [(0, 0)] * 3
            padding[axis] = (before, crop - size - before)
            pixels = np.pad(pixels, padding)
    return pixels


def normalize(pixels: NDArray[np.uint8], config: PreprocessConfig) -> NDArray[np.float32]:
    """8-bit pixels to `pixel_values`.

    Args:
        pixels: (B, H, W, 3) or (H, W, 3) uint8.
        config: its rescale factor, mean and standard deviation are used.

    Returns:
        (B, 3, H, W) or (3, H, W) float32, contiguous.
    """
    # A level's value depends on the channel alone: 3 x 256 table entries replace arithmetic on every pixel.
    levels = (np.arange(256, dtype=np.float64) * config.rescale_factor).astype(np.float32)[:, None]
    table = (levels - np.asarray(config.mean, np.float32)) / np.asarray(config.std, np.float32)
    planes = [table[:, channel][pixels[..., channel]] for channel in range(3)]
    return np.stack(planes, axis=-3)


def preprocess(source: ImageSource, config: PreprocessConfig) -> NDArray[np.float32]:
    """One image to `pixel_values` (3, H, W) float32. See `open_rgb` for what it takes and raises."""
    return normalize(crop_uint8(source, config), config)
