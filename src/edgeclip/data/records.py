"""What an image-caption set is: named records, each with an image that can be read and its captions."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeclip.data.row_count import RowCount
from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.image import ImageSource


class ImageRef(Protocol):
    """Where an image is; small and picklable, so that worker processes can do the reading."""

    def read(self) -> ImageSource:
        """Fetch the image, still encoded where it is stored so."""
        ...


@dataclass(frozen=True)
class FileImage:
    """An image file."""

    path: Path

    def read(self) -> ImageSource:
        """Return the path; decoding opens it."""
        return self.path


@dataclass(frozen=True)
class SceneImage:
    """A scene of the built-in world, drawn when it is read."""

    world: str
    seed: int
    index: int

    def read(self) -> ImageSource:
        """Draw the scene: (224, 224, 3) uint8."""
        return render(sample_scene(self.world, self.seed, self.index))


@dataclass(frozen=True)
class Record:
    """One image with at least one caption."""

    name: str
    image: ImageRef
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionSet:
    """A named list of records.

    Attributes:
        name: for tables and reports.
        records: the pairs.
        has_training_part: whether it is a part of a set that has another to train on.
        rows: what became of the rows that it was read from.
        has_splits: whether it is one of the splits that its source has names for.
        captioned: whether the captions are of the images; else they are texts that say nothing of them.
    """

    name: str
    records: Sequence[Record]
    has_training_part: bool = False
    rows: RowCount | None = None
    has_splits: bool = False
    captioned: bool = True

    def __len__(self) -> int:
        return len(self.records)

    @property
    def things(self) -> str:
        """What its records are called."""
        return "pairs" if self.captioned else "pictures without captions"


def texts_in(value: object) -> tuple[str, ...]:
    """The captions in a cell: a string, or a list of them; whatever else is there is no caption, nor is a blank."""
    values = value if isinstance(value, list) else [value]
    return tuple(text for text in values if isinstance(text, str) and text.strip())


def same_pictures(hashes: Iterable[tuple[int, Hashable]]) -> list[list[int]]:
    """The numbers of pictures, with those together whose hashes are the same.

    Apart they would be each other's rivals, and one could be trained on that another measures.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, picture in hashes:
        groups.setdefault(picture, []).append(number)
    return list(groups.values())


def fingerprint(records: Iterable[Record]) -> str:
    """A hash of names and captions."""
    total = hashlib.sha256()
    for record in records:
        total.update(repr((record.name, record.captions)).encode())
    return total.hexdigest()


@dataclass(frozen=True)
class TabletopRecords(Sequence[Record]):
    """The first `total` scenes of a world, made when they are asked for."""

    world: str
    seed: int
    total: int

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]  # slices are not needed
        if not 0 <= index < self.total:
            raise IndexError(index)
        captions = tuple(describe(sample_scene(self.world, self.seed, index)))
        return Record(f"tabletop-{self.world}-{self.seed}-{index}", SceneImage(self.world, self.seed, index), captions)
