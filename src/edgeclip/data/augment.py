"""Random crops that can be replayed: a few numbers, drawn once, from which anyone gets the same pixels again.

Shape legend: N images, A augmentations of each, P numbers that describe one; H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from edgeclip.config import Config, PreprocessConfig, check_range
from edgeclip.errors import ConfigError
from edgeclip.image import ImageSource, crop_uint8, open_rgb


class AugmentConfig(Config, frozen=True, kw_only=True):
    """How far augmentations go.

    A crop covers between `min_area` and all of the image, its sides in a ratio of up to `max_ratio`; it is mirrored
    with probability `flip` (0 where captions tell left from right), and its brightness, contrast and saturation are
    multiplied by factors from 1 - `jitter` to 1 + `jitter`.
    """

    min_area: float = 0.4
    max_ratio: float = 4 / 3
    flip: float = 0.5
    jitter: float = 0.2

    def __post_init__(self) -> None:
        check_range("min_area", self.min_area, 0.01, 1)
        check_range("max_ratio", self.max_ratio, 1, 10)
        check_range("flip", self.flip, 0, 1)
        check_range("jitter", self.jitter, 0, 0.99)


class Augmentation(NamedTuple):
    """One random crop, whatever the size of the image.

    `area` as a fraction of the image's; `ratio` of width to height; `x` and `y`, from 0 to 1, say where in the room
    that is left; `mirrored` is 0 or 1; the last three are factors.
    """

    area: float
    ratio: float
    x: float
    y: float
    mirrored: float
    brightness: float
    contrast: float
    saturation: float


def draw(config: AugmentConfig, seed: int, indices: Sequence[int], count: int) -> NDArray[np.float32]:
    """Draw `count` augmentations for each image; those of an image depend on the seed and its index alone.

    Returns:
        (N, A, P) float32, of which `Augmentation(*row)` is one. The first of each image is all NaN: it stands for the
        plain crop, which a device makes.
    """
    drawn = np.full((len(indices), count, len(Augmentation._fields)), np.nan, np.float32)
    low = [config.min_area, -math.log(config.max_ratio), 0, 0, 0, *[1 - config.jitter] * 3]
    high = [1, math.log(config.max_ratio), 1, 1, 1, *[1 + config.jitter] * 3]
    for row, index in zip(drawn, indices, strict=True):
        row[1:] = np.random.default_rng((seed, index)).uniform(low, high, (count - 1, len(low)))
    drawn[..., 1] = np.exp(drawn[..., 1])
    drawn[:, 1:, 4] = drawn[:, 1:, 4] < config.flip
    return drawn


def augment(source: ImageSource, augmentation: Augmentation, config: PreprocessConfig) -> NDArray[np.uint8]:
    """Decode an image and apply an augmentation; the same pixels for the same arguments.

    Returns:
        (H, W, 3) uint8, of the size that `config` gives every image.

    Raises:
        ImageError: see `image.open_rgb`.
        ConfigError: the size depends on the image.
    """
    size = config.crop_size or config.resize_to
    if size is None:
        raise ConfigError("augmentation without a crop_size", expected="images of one size", fix="set crop_size")
    if math.isnan(augmentation.area):
        return crop_uint8(source, config)
    image = open_rgb(source)
    box = crop_box(augmentation, image.width, image.height)
    image = image.resize((size[1], size[0]), config.resample, box=box)
    if augmentation.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), augmentation[-3:], strict=True
    ):
        image = enhance(image).enhance(factor)
    return np.asarray(image)


def crop_box(augmentation: Augmentation, width: int, height: int) -> tuple[float, float, float, float]:
    """The crop in pixels (left, upper, right, lower), of at least one pixel; sides that stick out are cut to the image.

    As torchvision's RandomResizedCrop, but for the last: that tries other numbers, and then takes the middle.
    """
    area = augmentation.area * width * height
    crop_width = min(max(math.sqrt(area * augmentation.ratio), 1.0), width)
    crop_height = min(max(math.sqrt(area / augmentation.ratio), 1.0), height)
    left, upper = augmentation.x * (width - crop_width), augmentation.y * (height - crop_height)
    return left, upper, min(left + crop_width, width), min(upper + crop_height, height)
