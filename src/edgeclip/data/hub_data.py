"""Hugging Face data sets, from the hub, its cache, or a local folder of parquet files."""

from __future__ import annotations

import glob
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclip.data.folder import CAPTION_COLUMNS, choose_column
from edgeclip.data.records import CaptionSet, FileImage, Record, same_pictures, texts_in
from edgeclip.data.row_count import RowCount
from edgeclip.errors import DAMAGED, DataError, HubError
from edgeclip.hub import is_reached
from edgeclip.image import ImageSource

EVALUATION_SPLITS = ("test", "validation", "val")
TRAINING_SPLITS = ("train", "training")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The words that tell the split of a file where they are part of its place, as for `datasets`."""
CELL = {"bytes", "path"}
"""What a cell of an image has."""
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}[^/]*")
"""The name of a file that tells its split outright: test-00000-of-00003.parquet."""


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
        captions = tuple(text for row in rows for text in texts_in(row[self.caption_column]))
        image = _image(rows[0][self.image_column])
        assert image is not None  # noqa: S101 - rows without one were left out
        return Record(f"row {self.rows[index][0]}", image, captions)


def _image(cell: dict[str, Any] | None) -> EncodedImage | FileImage | None:
    """An image in its cell, or in the file that the cell names."""
    if not cell or (cell["bytes"] is None and not cell["path"]):
        return None
    return EncodedImage(cell["bytes"]) if cell["bytes"] is not None else FileImage(Path(cell["path"]))


def _group(dataset: Any, image_column: str, caption_column: str, count: RowCount) -> list[list[int]]:
    """Rows with the same picture belong together; rows without image or caption go, and are counted."""

    def pictures() -> Iterator[tuple[int, Hashable]]:
        for index, row in enumerate(dataset):
            count.read += 1
            image = _image(row[image_column])
            if image is None:
                count.leave_out("without an image", f"row {index}")
            elif not texts_in(row[caption_column]):
                count.leave_out("without a caption", f"row {index}")
            else:
                yield index, image if isinstance(image, FileImage) else hashlib.sha256(image.data).digest()

    return same_pictures(pictures())


def load_hub(
    source: str, split: str | None, image_column: str | None, caption_column: str | None, *, training: bool
) -> CaptionSet:
    """Load a data set by hub id, local folder or parquet file, finding its image and caption columns.

    Where no split is named it is the usual one to train on, or to evaluate on.

    Raises:
        DataError: the `data` extra is not installed, its files are damaged, or there is no such split or column.
        HubError: it can't be downloaded and is not in the cache.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"the data set {source}", expected="the package `datasets`", fix="pip install 'edgeclip[data]'"
        ) from error
    loaded = _load(datasets, source)
    chosen = choose_split(loaded, split, TRAINING_SPLITS if training else EVALUATION_SPLITS, source)
    image = _image_column(chosen, image_column, source, datasets.Image)
    caption = choose_column(chosen.column_names, caption_column, CAPTION_COLUMNS, source, "caption_column")
    encoded = chosen.cast_column(image, datasets.Image(decode=False))
    count = RowCount(source)
    try:
        rows = _group(encoded, image, caption, count)
    except DAMAGED as error:
        raise DataError(
            f"{source}, row {count.read}, which cannot be read ({type(error).__name__}: {error})",
            expected="intact parquet files",
            fix="download it again",
        ) from error
    if not rows:
        raise DataError(
            f"{source} without a row that has image and caption ({count})",
            expected="at least one",
            fix="name the columns with `image_column` and `caption_column`",
        )
    count.tell()
    training_part = not split and not training and any(name in loaded for name in TRAINING_SPLITS)
    records = HubRecords(encoded, image, caption, rows)
    return CaptionSet(source, records, training_part and len(loaded) > 1, rows=count, has_splits=True)


def _load(datasets: Any, source: str) -> Any:
    """The splits by name; the library draws and prints nothing, and what it would print of damaged files is raised."""
    datasets.disable_progress_bars()
    logger = logging.getLogger("datasets")
    level, offline = logger.level, datasets.config.HF_HUB_OFFLINE
    logger.setLevel(logging.CRITICAL)
    try:
        if Path(source).exists():  # read file by file: what else lies in a folder may name files anywhere in the world
            return datasets.load_dataset("parquet", data_files=_files_by_split(Path(source)))
        datasets.config.HF_HUB_OFFLINE = offline or not is_reached(source)
        return datasets.load_dataset(source)
    except (*DAMAGED, datasets.exceptions.DatasetsError) as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if Path(source).exists():
            raise DataError(
                f"{source} cannot be read ({reason})", expected="intact parquet files", fix="download it again"
            ) from error
        raise HubError(
            f"unknown data set {source} ({reason})",
            expected="builtin:tabletop, a folder, or a hub data set that can be reached or is in the cache",
            fix="give organisation/name as its page has it, and connect once",
        ) from error
    finally:
        logger.setLevel(level)
        datasets.config.HF_HUB_OFFLINE = offline


def _files_by_split(source: Path) -> dict[str, list[str]]:
    """The parquet files of a folder, or one file, by the split that their places tell of; "train" where none does.

    Raises:
        DataError: it is several data sets, whose files are called the same.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*.parquet")) if source.is_dir() else [source]:
        place = path.relative_to(source.parent if source.is_file() else source)
        if any(part.startswith(".") for part in place.parts):
            continue
        shard = SHARD.fullmatch(path.stem)
        words = [shard[1]] if shard else re.findall("[a-z]+", place.with_suffix("").as_posix().lower())
        split = next((SPLITS[word] for word in words if word in SPLITS), shard[1] if shard else "train")
        found.setdefault(split, []).append(path)
    for paths in found.values():
        twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
        if twice:
            folders = [str(path.parent) for path in paths if path.name == twice[0]]
            raise DataError(
                f"{source} with {twice[0]} in {' and '.join(folders[:2])}",
                expected="one data set",
                fix=f"give {folders[0]}",
            )
    return {split: [glob.escape(str(path)) for path in paths] for split, paths in found.items()}


def choose_split(loaded: Any, split: str | None, usual: Sequence[str], source: str) -> Any:
    """The split that was asked for, or the first of the usual names that is there, or else the first.

    Raises:
        DataError: there is none of that name.
    """
    names = list(loaded)
    for name in (split,) if split else (*usual, *names):
        if name in names:
            return loaded[name]
    raise DataError(
        f"{source} with the splits {', '.join(names) or '(none)'}",
        expected=f"{split!r}" if split else "at least one",
        fix=f"give `split` {names[0]}" if names else "download it again",
    )


def _image_column(dataset: Any, given: str | None, source: str, image_type: type) -> str:
    """The column that was asked for, or the first of images: one that says so, or else has cells as they have."""
    named = [name for name, feature in dataset.features.items() if isinstance(feature, image_type)]
    alike = [name for name, feature in dataset.features.items() if isinstance(feature, dict) and set(feature) == CELL]
    images = [*named, *alike]
    if given in images or (given is None and images):
        return given or images[0]
    raise DataError(
        f"{source} with the image columns {', '.join(images) or '(none)'} among {', '.join(dataset.column_names)}",
        expected=f"an image column {given!r}" if given else "a column of images",
        fix="name it with `image_column`",
    )
