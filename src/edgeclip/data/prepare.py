"""Decode a chosen part of a caption set into memory.

Shape legend: N images, H and W pixels, C captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeclip.config import PreprocessConfig
from edgeclip.data.data_settings import DataSettings
from edgeclip.data.decode_views import decode, in_chunks
from edgeclip.data.records import CaptionSet
from edgeclip.data.split import Part
from edgeclip.errors import DataError
from edgeclip.image import Crop
from edgeclip.progress import Advance, ignore, task
from edgeclip.settings import OnBadImage


@dataclass(frozen=True)
class Prepared:
    """Decoded images: `pixels` (N, H, W, 3) uint8 with their names and captions; broken ones as "name: reason"."""

    names: list[str]
    pixels: NDArray[np.uint8]
    captions: list[tuple[str, ...]]
    bad_images: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def crops(self) -> list[Crop]:
        """The pixels as what an encoder takes."""
        return [Crop(pixels) for pixels in self.pixels]

    def first(self, count: int) -> Prepared:
        """The first images, at most so many."""
        return self.between(0, count)

    def between(self, start: int, stop: int) -> Prepared:
        """The images from one number up to another, those that there are."""
        part = slice(start, stop)
        return Prepared(self.names[part], self.pixels[part], self.captions[part], self.bad_images)

    @property
    def first_captions(self) -> list[str]:
        """One caption per image, the first: the paper's pairs."""
        return [captions[0] for captions in self.captions]

    @property
    def all_captions(self) -> tuple[list[str], NDArray[np.int64]]:
        """All captions, and (C,) the image each belongs to."""
        counts = [len(captions) for captions in self.captions]
        return [text for captions in self.captions for text in captions], np.repeat(np.arange(len(self)), counts)


def prepare(
    captions: CaptionSet,
    indices: Sequence[int],
    config: PreprocessConfig,
    *,
    workers: int,
    on_bad_image: OnBadImage,
    advance: Advance = ignore,
) -> Prepared:
    """Decode the images of some records.

    Raises:
        DataError: an image is broken and `on_bad_image` is "fail", or none could be decoded.
    """
    parts: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    bad: list[str] = []
    for chunk in decode(captions.records, in_chunks(indices), config, workers=workers):
        for index, reason in chunk.bad.items():
            bad.append(f"{captions.records[index].name}: {reason}")
            if on_bad_image == "fail":
                raise DataError(bad[-1], expected="an intact image", fix="replace it or use `on_bad_image` skip")
        parts.append(chunk.pixels)
        kept.extend(chunk.indices)
        advance(len(chunk.indices) + len(chunk.bad))
    if not kept:
        raise DataError(f"{captions.name}, none of whose images can be read", expected="images", fix=f"see {bad[0]}")
    records = [captions.records[index] for index in kept]
    return Prepared(
        names=[record.name for record in records],
        pixels=np.concatenate(parts),
        captions=[record.captions for record in records],
        bad_images=bad,
    )


def prepare_parts(parts: Sequence[Part], config: PreprocessConfig, settings: DataSettings) -> list[Prepared]:
    """Decode several parts of one set, or of several, as one task; see `prepare`."""
    with task("decoding images", sum(map(len, parts))) as advance:
        return [
            prepare(
                part.captions,
                part.indices,
                config,
                workers=settings.workers,
                on_bad_image=settings.on_bad_image,
                advance=advance,
            )
            for part in parts
        ]
