"""The one image path: file, bytes, picture or array to `pixel_values`, for training, calibration and device alike.

It gives the same bits as transformers' `CLIPImageProcessorPil` for any picture or array that both accept, and for files
of all formats but JPEG. A JPEG much larger than its crop is scaled while it is decoded, which changes the crop by half
a grey level on average (see `decode.MIN_SHRINK`) and takes a third of the time or less; `crop_uint8(open_rgb(path),
config)` does without. In addition the EXIF orientation is honoured, and 16-bit images are scaled to 8 bits instead of
clipped.

Shape legend: B batch, H and W pixels of the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError
from edgeclip.image.decode import MAX_DECODE_BYTES, Opened, opened
from edgeclip.image.rgb import to_rgb


@dataclass(frozen=True)
class Crop:
    """An image as a model's preprocessing has left it, (H, W, 3) uint8; all that is left to do is to normalise it."""

    pixels: NDArray[np.uint8]


ImageSource: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8] | Crop

BYTES_A_PIXEL = 4
"""What Pillow keeps of an RGB picture."""


def open_rgb(source: ImageSource) -> Image.Image:
    """Decode any image to 8-bit RGB, in full, upright, transparency laid on white.

    Args:
        source: path, encoded bytes, Pillow image, crop, or (H, W, 3) / (H, W, 4) / (H, W) uint8 array.

    Raises:
        ImageError: it is missing, damaged, too large, or of an unknown format.
    """
    with opened(_picture(source)) as whole:
        return to_rgb(whole.image)


def _picture(source: ImageSource) -> str | Path | bytes | Image.Image:
    if isinstance(source, Crop):
        source = source.pixels
    if not isinstance(source, np.ndarray):
        return source
    _check_array(source)
    return Image.fromarray(source)


def _check_array(source: NDArray[np.uint8]) -> None:
    channels_ok = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
    if source.dtype != np.uint8 or not channels_ok or 0 in source.shape:
        raise ImageError(
            f"an array of {source.dtype} with shape {source.shape}",
            expected="uint8 of shape (H, W), (H, W, 3) or (H, W, 4)",
            fix="convert it first",
        )


def crop_uint8(source: ImageSource, config: PreprocessConfig) -> NDArray[np.uint8]:
    """Decode, resize and crop, leaving 8-bit pixels; `normalize` does the rest.

    Returns:
        (H, W, 3) uint8, of the crop size where there is one.

    Raises:
        ImageError: see `open_rgb`.
    """
    return crop_and_size(source, config)[0]


def crop_and_size(source: ImageSource, config: PreprocessConfig) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The same with (width, height) of the original, upright.

    Raises:
        ImageError: see `open_rgb`.
    """
    if isinstance(source, Crop):
        return _checked_crop(source, config), source.pixels.shape[1::-1]
    if isinstance(source, np.ndarray) and _needs_no_resize(source, config):
        # Frames of the right size, as cameras deliver them. A copy: their buffer may hold the next one soon.
        pixels = np.array(center_crop(source, config.crop_size) if config.crop_size else source)
        return pixels, source.shape[1::-1]
    # The other filters are either not meant to average (nearest) or were not measured.
    scalable = config.resample == Image.Resampling.BICUBIC
    with opened(_picture(source), (lambda size: _resized_size(*size, config)) if scalable else None) as picture:
        pixels = _resize_scaled(picture, config) if picture.is_scaled else _resized_crop(picture, config)
    return (center_crop(pixels, config.crop_size) if config.crop_size else pixels), picture.size


def _checked_crop(crop: Crop, config: PreprocessConfig) -> NDArray[np.uint8]:
    height, width = config.crop_size or config.resize_to or crop.pixels.shape[:2]
    if crop.pixels.shape != (height, width, 3):
        raise ImageError(
            f"a crop of shape {crop.pixels.shape}",
            expected=f"{(height, width, 3)}, the model's",
            fix="give the image itself",
        )
    return crop.pixels


def _needs_no_resize(source: NDArray[np.uint8], config: PreprocessConfig) -> bool:
    _check_array(source)
    height, width = source.shape[:2]
    return source.shape[2:] == (3,) and _resized_size(width, height, config) == (width, height)


def _resized_crop(picture: Opened, config: PreprocessConfig) -> NDArray[np.uint8]:
    """What the crop keeps of a full resize: the rest of a long picture would take as much memory again as an array."""
    image = _resize(to_rgb(picture.image), config)
    if config.crop_size is None:
        return np.asarray(image)
    (left, top), (width, height) = _window(image.size, config.crop_size)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def _resize(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    width, height = _resized_size(*image.size, config)
    if (width, height) == image.size:
        return image
    # Pillow resizes across first, then down.
    needed = BYTES_A_PIXEL * (math.prod(image.size) + width * image.height + width * height)
    if needed > MAX_DECODE_BYTES:
        raise ImageError(
            f"a picture of {image.width}x{image.height}, which resizes to {width}x{height} in {needed // 10**6} MB",
            expected=f"at most {MAX_DECODE_BYTES // 10**6} MB",
            fix="cut it into less narrow pieces",
        )
    return image.resize((width, height), config.resample)


def _resize_scaled(picture: Opened, config: PreprocessConfig) -> NDArray[np.uint8]:
    """Resize no more than what the crop keeps; Pillow does so at single precision, which doesn't matter here."""
    size = _resized_size(*picture.size, config)
    start, extent = _window(size, config.crop_size) if config.crop_size else ((0, 0), size)
    left, top, width, height = picture.box
    x, y = width / size[0], height / size[1]
    box = (
        left + x * start[0],
        top + y * start[1],
        left + x * (start[0] + extent[0]),
        top + y * (start[1] + extent[1]),
    )
    return np.asarray(to_rgb(picture.image).resize(extent, config.resample, box))


def _window(size: tuple[int, int], crop_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(x, y) and (width, height) of what a crop (height, width) keeps of a picture (width, height)."""
    (width, height), (crop_height, crop_width) = size, crop_size
    start = (_crop_start(width, crop_width), _crop_start(height, crop_height))
    return start, (min(crop_width, width), min(crop_height, height))


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
    levels = (np.arange(256, dtype=np.float64) * config.rescale_factor).astype(np.float32)
    result = np.empty((*pixels.shape[:-3], 3, *pixels.shape[-3:-1]), np.float32)
    for channel in range(3):
        table = (levels - np.float32(config.mean[channel])) / np.float32(config.std[channel])
        # No level is out of range; "wrap" spares NumPy the buffer of "raise" and the comparisons of "clip".
        np.take(table, pixels[..., channel], out=result[..., channel, :, :], mode="wrap")
    return result


def preprocess(source: ImageSource, config: PreprocessConfig) -> NDArray[np.float32]:
    """One image to `pixel_values` (3, H, W) float32. See `open_rgb` for what it takes and raises."""
    return normalize(crop_uint8(source, config), config)
