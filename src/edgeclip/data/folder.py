"""A folder of images with a table of captions: the Kaggle Flickr8k layout and its relatives."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgeclip.data.records import CaptionSet, FileImage, Record
from edgeclip.errors import DataError

TABLES = ("captions.csv", "captions.txt", "results.csv", "metadata.csv", "captions.tsv")
IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename", "filepath", "file", "path", "image_path")
CAPTION_COLUMNS = ("caption", "captions", "text", "comment", "sentence", "sentences", "title", "alt_text")
IMAGE_FOLDERS = ("images", "Images", "flickr30k_images", "")


def find_table(folder: Path) -> Path | None:
    """The table of captions of a folder: one of the usual names, or the only CSV file there is."""
    for name in TABLES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.csv"))
    return others[0] if len(others) == 1 else None


def load_table(table: Path, image_column: str | None, caption_column: str | None) -> CaptionSet:
    """Read a table with one row per caption; rows of the same image are put together, in order of first appearance.

    Raises:
        DataError: it can't be read, lacks the columns, or has no rows.
    """
    header, rows = _read(table)
    image = choose_column(header, image_column, IMAGE_COLUMNS, f"{table}", "image_column")
    caption = choose_column(header, caption_column, CAPTION_COLUMNS, f"{table}", "caption_column")
    image_at, caption_at = header.index(image), header.index(caption)
    captions: dict[str, list[str]] = {}
    for row in rows:
        if len(row) > max(image_at, caption_at) and row[image_at].strip() and row[caption_at].strip():
            captions.setdefault(row[image_at].strip(), []).append(row[caption_at].strip())
    if not captions:
        raise DataError(
            f"{table} without a row",
            expected="an image and a caption in each row",
            fix="write rows such as 0001.jpg,a dog runs",
        )
    base = _image_folder(table.parent, next(iter(captions)))
    records = [Record(name, FileImage(base / name), tuple(texts)) for name, texts in captions.items()]
    return CaptionSet(table.parent.name, records)


def choose_column(header: Sequence[str], given: str | None, usual: Sequence[str], source: str, setting: str) -> str:
    """The column that was asked for, or the first of the usual names that is there.

    Raises:
        DataError: there is none.
    """
    wanted = (given,) if given else usual
    for name in wanted:
        if name in header:
            return name
    raise DataError(
        f"{source} with the columns {', '.join(header) or '(none)'}",
        expected=f"a column {given!r}" if given else f"one named {', '.join(usual)}",
        fix=f"name it with `{setting}`",
    )


def _read(table: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = table.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise DataError(
            f"{table} cannot be read ({error.strerror})",
            expected="a table",
            fix="give the path of one that can be read",
        ) from error
    first = text.split("\n", 1)[0]
    delimiter = max(",|\t;", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise DataError(
            f"{table} is not a table ({error})", expected="comma-separated values", fix="save it as CSV in UTF-8"
        ) from error
    if not rows:
        raise DataError(
            f"{table}, an empty file", expected="a header and rows", fix="write rows such as 0001.jpg,a dog runs"
        )
    return [name.strip() for name in rows[0]], rows[1:]


def _image_folder(folder: Path, example: str) -> Path:
    for name in IMAGE_FOLDERS:
        if (folder / name / example).is_file():
            return folder / name
    # Where even the first image is missing, its absence is reported by name when it is read.
    return folder / "images" if (folder / "images").is_dir() else folder
