"""What a caller gives as images, and what becomes of those that can't be decoded; of bundles and checkpoints alike.

Shape legend: N images, H and W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ConfigError, ImageError, InputError
from edgeclip.image import Crop, ImageSource, crop_uint8
from edgeclip.inputs import check_choice, check_item, items_of
from edgeclip.runtime.stream import Flush

Images: TypeAlias = ImageSource | Iterable[ImageSource]
"""One image, or any iterable of images; an array (N, H, W, 3) is N of them."""
OnError = Literal["raise", "skip"]
OnSkip: TypeAlias = Callable[[int, ImageError], None]
"""Told the place of an image among those given, from 0, and what is wrong with it."""

KINDS = (str, Path, bytes, Image.Image, np.ndarray, Crop)
_EXPECTED = "paths, encoded bytes, Pillow images or uint8 arrays"
_NAMED = 5


def images_of(images: Images) -> Iterator[ImageSource]:
    """The images one by one, as they are asked for.

    Raises:
        InputError: neither an image nor an iterable of images.
    """
    return _checked(_items(images), KINDS)


def images_or_flush(images: ImageSource | Iterable[ImageSource | Flush]) -> Iterator[ImageSource | Flush]:
    """The same for a stream, where `FLUSH` may stand between images."""
    return _checked(_items(images), (*KINDS, Flush))


def _items(images: object) -> Iterable[object]:
    """An array of two or three axes is one picture; one of four holds several, one of one axis paths."""
    several = isinstance(images, np.ndarray) and images.ndim not in (2, 3)
    return items_of(images, () if several else KINDS, "`images`", _EXPECTED)


def _checked(items: Iterable[Any], kinds: tuple[type, ...]) -> Iterator[Any]:
    for index, item in enumerate(items):
        check_item(item, kinds, index, "`images`", _EXPECTED)
        yield item


def crops_of(images: Images, config: PreprocessConfig, skips: Skips) -> Iterator[NDArray[np.uint8]]:
    """The crops (H, W, 3) uint8 of the images that can be decoded, as they are asked for.

    Raises:
        InputError, ImageError: see `images_of` and `Skips`.
    """
    for index, image in enumerate(images_of(images)):
        try:
            crop = crop_uint8(image, config)
        except ImageError as error:
            skips(index, error)
        else:
            yield crop


class Skips:
    """What is done about images that can't be decoded: the first is raised, or all are left out and told."""

    def __init__(self, on_error: OnError, on_skip: OnSkip | None) -> None:
        """Check the caller's choice.

        Raises:
            ConfigError: an unknown one, or someone to tell of images that are not left out.
            InputError: someone to tell who can't be called.
        """
        check_choice("`on_error`", on_error, get_args(OnError))
        if on_skip is not None and not callable(on_skip):
            raise InputError(f"`on_skip` {on_skip!r}", expected="a function of index and error", fix="leave it out")
        if on_skip is not None and on_error != "skip":
            raise ConfigError("`on_skip` with `on_error` raise", expected="skip", fix="use `on_error` skip")
        self._raises, self._on_skip = on_error == "raise", on_skip
        self._untold: list[str] = []

    def __call__(self, index: int, error: ImageError) -> None:
        """Deal with one.

        Raises:
            ImageError: the one given.
        """
        if self._raises:
            raise error
        if self._on_skip is not None:
            self._on_skip(index, error)
        else:
            self._untold.append(f"{index} ({error.got})")

    def warn(self) -> None:
        """Warn the caller's caller of those that nobody was told of, since rows no longer stand where images stood."""
        if self._untold:
            more = ", ..." if len(self._untold) > _NAMED else ""
            warnings.warn(
                f"{len(self._untold)} images were left out, so that later rows have moved up: "
                f"{', '.join(self._untold[:_NAMED])}{more}; give `on_skip` to be told instead",
                stacklevel=3,
            )
