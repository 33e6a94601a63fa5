"""A folder of images with a table of captions: the Kaggle Flickr8k layout and its relatives."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

from edgeclip.data.image_folders import ImageFolders
from edgeclip.data.records import CaptionSet, FileImage, Record
from edgeclip.data.row_count import RowCount
from edgeclip.data.tables import Row, Table, read_table
from edgeclip.errors import DataError

TABLES = ("captions.csv", "captions.txt", "results.csv", "metadata.csv", "captions.tsv", "Flickr8k.token.txt")
IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename", "filepath", "file", "path", "image_path")
CAPTION_COLUMNS = ("caption", "captions", "text", "comment", "sentence", "sentences", "title", "alt_text")
IMAGE_FOLDERS = ("images", "Images", "flickr30k_images", "Flicker8k_Dataset", "")


def find_table(folder: Path) -> Path | None:
    """The table of captions of a folder: one of the usual names, or the only CSV file there is."""
    for name in TABLES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.csv"))
    return others[0] if len(others) == 1 else None


def load_table(path: Path, image_column: str | None, caption_column: str | None) -> CaptionSet:
    """Read a table with one row per caption; rows of the same image are put together, in order of first appearance.

    A row that lacks a field is left out, and so is one with too many in a table without quotes.

    Raises:
        DataError: it can't be read, lacks the columns, has no rows, or its quotes and delimiters don't tell what its
            captions are.
    """
    table = read_table(path)
    image = choose_column(table.header, image_column, IMAGE_COLUMNS, f"{path}", "image_column")
    caption = choose_column(table.header, caption_column, CAPTION_COLUMNS, f"{path}", "caption_column")
    image_at, caption_at = table.header.index(image), table.header.index(caption)
    captions: dict[str, list[str]] = {}
    count = RowCount(str(path))
    for row in table.rows:
        count.read += 1
        _check_quotes(path, table, row, image_at)
        fields = _fitted(path, table, row, caption_at)
        name, text = (fields[at].strip() if at < len(fields) else "" for at in (image_at, caption_at))
        if len(fields) > len(table.header):
            count.leave_out("of too many fields", f"line {row.line}")
        elif not name or not text:
            few = len(fields) <= max(image_at, caption_at)
            reason = "of too few fields" if few else "without a caption" if name else "without an image"
            count.leave_out(reason, f"line {row.line}")
        else:
            captions.setdefault(posixpath.normpath(name), []).append(text)  # ./0001.jpg is 0001.jpg
    if not captions:
        raise DataError(
            f"{path} without a row that can be used ({count})" if count.read else f"{path} without a row",
            expected="an image and a caption in each row",
            fix="write rows such as 0001.jpg,a dog runs",
        )
    count.tell()
    base = path.parent
    images = ImageFolders([base / name for name in IMAGE_FOLDERS if (base / name).is_dir()])
    records = [
        Record(name, FileImage(images.find(name, name.replace("\\", "/"))), tuple(texts))
        for name, texts in captions.items()
    ]
    images.tell_missing(str(path))
    return CaptionSet(base.name, records, rows=count)


def choose_column(header: Sequence[str], given: str | None, usual: Sequence[str], source: str, setting: str) -> str:
    """The column that was asked for, or the first of the usual names that is there.

    Raises:
        DataError: there is none, or more than one.
    """
    wanted = (given,) if given else usual
    for name in wanted:
        if header.count(name) > 1:
            raise DataError(
                f"{source} with {header.count(name)} columns {name}", expected="one", fix="rename the others"
            )
        if name in header:
            return name
    raise DataError(
        f"{source} with the columns {', '.join(header) or '(none)'}",
        expected=f"a column {given!r}" if given else f"one named {', '.join(usual)}",
        fix=f"name it with `{setting}`",
    )


def _check_quotes(path: Path, table: Table, row: Row, image_at: int) -> None:
    """Refuse a caption in quotes that has rows inside: its quote was not meant to open one, or was not closed."""
    if len(row.text) == 1:
        return

    def is_row(line: str) -> bool:
        fields = [field.strip(' "\r\n') for field in line.split(table.delimiter)]
        return len(fields) >= len(table.header) and Path(fields[image_at]).suffix == suffix

    suffix = Path(row.fields[image_at].strip()).suffix if image_at < len(row.fields) else ""
    if suffix and is_row(row.text[0]) and any(map(is_row, row.text[1:])):
        raise DataError(
            f"{path}, line {row.line}, with a quote that is not closed before line {row.line + len(row.text) - 1}",
            expected="a caption in quotes to end in its row",
            fix='close the quote, or write "" for one that belongs to the caption',
        )


def _fitted(path: Path, table: Table, row: Row, caption_at: int) -> list[str]:
    """The fields of a row, as many as the table has columns where it can be told what was meant."""
    columns = len(table.header)
    if not any(map(str.strip, row.fields[columns:])):
        return row.fields[:columns]
    quoted = table.quoted and any(part.lstrip().startswith('"') for part in row.text[0].split(table.delimiter))
    if columns == 2 and caption_at == 1 and not quoted:
        return row.text[0].split(table.delimiter, 1)
    if table.quoted:
        raise DataError(
            f"{path}, line {row.line}, with {len(row.fields)} fields",
            expected=f"{columns}, as its header has",
            fix=f'write a caption with a {table.delimiter} in quotes: "a dog{table.delimiter} running"',
        )
    return row.fields
