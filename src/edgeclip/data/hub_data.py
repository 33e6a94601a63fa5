"""Hugging Face data sets, from the hub, its cache, or a local folder of parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclip.data.folder import CAPTION_COLUMNS, choose_column
from edgeclip.data.records import CaptionSet, Record, same_pictures
from edgeclip.errors import DataError, HubError
from edgeclip.image import ImageSource

EVALUATION_SPLITS = ("test", "validation", "val")
TRAINING_SPLITS = ("train", "training")


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image in memory."""

    data: bytes

    def read(self) -> ImageSource:
        """The encoded bytes."""
        return self.data


@dataclass(frozen=True)
class HubRecords(Sequence[Record]):
    """Images of a `datasets.Dataset`, left encoded and read from its memory map when they are asked for.

    `rows` gives the rows of each image: one, or several where a data set has a row for each caption.
    """

    dataset: Any
    image_column: str
    caption_column: str
    rows: list[list[int]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]  # slices are not needed
        rows = [self.dataset[row] for row in self.rows[index]]
        captions = tuple(text for row in rows for text in _texts(row[self.caption_column]))
        return Record(f"row {self.rows[index][0]}", EncodedImage(_bytes(rows[0][self.image_column])), captions)


def _bytes(image: dict[str, Any]) -> bytes:
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def _texts(value: object) -> list[str]:
    """Captions of a cell: a string, or a list of them; whatever else is there is no caption."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]


def _group(dataset: Any, image_column: str, caption_column: str) -> list[list[int]]:
    """Rows with the same picture belong together; rows without image or caption go."""
    return same_pictures(
        (index, hashlib.sha256(_bytes(row[image_column])).digest())
        for index, row in enumerate(dataset)
        if row[image_column] is not None and _texts(row[caption_column])
    )


def load_hub(
    source: str, split: str | None, image_column: str | None, caption_column: str | None, *, training: bool
) -> CaptionSet:
    """Load a data set by hub id or local folder, finding its image and caption columns.

    Where no split is named it is the usual one to train on, or to evaluate on.

    Raises:
        DataError: the `data` extra is not installed, or there is no such split or column.
        HubError: it can't be downloaded and is not in the cache.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"the data set {source}", expected="the package `datasets`", fix="pip install 'edgeclip[data]'"
        ) from error
    datasets.disable_progress_bars()  # type: ignore[attr-defined]  # the library draws nothing
    try:
        loaded = datasets.load_dataset(source)  # type: ignore[attr-defined]  # not in its __all__
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise HubError(
            f"unknown data set {source} ({type(error).__name__}: {str(error).splitlines()[0]})",
            expected="builtin:tabletop, a folder, or a hub data set that can be reached or is in the cache",
            fix="give organisation/name as its page has it, and connect once",
        ) from error
    chosen = _choose_split(loaded, split, TRAINING_SPLITS if training else EVALUATION_SPLITS, source)
    image = _image_column(chosen, image_column, source, datasets.Image)
    caption = choose_column(chosen.column_names, caption_column, CAPTION_COLUMNS, source, "caption_column")
    encoded = chosen.cast_column(image, datasets.Image(decode=False))
    rows = _group(encoded, image, caption)
    if not rows:
        raise DataError(
            f"{source} without a row that has image and caption",
            expected="at least one",
            fix="name the columns with `image_column` and `caption_column`",
        )
    training_part = not split and not training and any(name in loaded for name in TRAINING_SPLITS)
    return CaptionSet(source, HubRecords(encoded, image, caption, rows), training_part and len(loaded) > 1)


def _choose_split(loaded: Any, split: str | None, usual: Sequence[str], source: str) -> Any:
    names = list(loaded)
    for name in (split,) if split else (*usual, *names):
        if name in names:
            return loaded[name]
    raise DataError(
        f"{source} with the splits {', '.join(names)}", expected=f"{split!r}", fix=f"give `split` {names[0]}"
    )


def _image_column(dataset: Any, given: str | None, source: str, image_type: type) -> str:
    images = [name for name, feature in dataset.features.items() if isinstance(feature, image_type)]
    if given in images or (given is None and images):
        return given or images[0]
    raise DataError(
        f"{source} with the image columns {', '.join(images) or '(none)'} among {', '.join(dataset.column_names)}",
        expected=f"an image column {given!r}" if given else "a column of images",
        fix="name it with `image_column`",
    )
