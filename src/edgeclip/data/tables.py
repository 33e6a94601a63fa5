"""Tables of captions, read as their writers write them.

Commas and semicolons: RFC 4180, with quotes around what holds a delimiter, a quote or an end of line. Tabs and bars: no
quotes, as in Flickr30k's results.csv, where a caption may begin with one; but a field whose inner quotes are doubled is
one that a CSV writer had to quote, and a table whose header is quoted is quoted throughout.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeclip.errors import DataError
from edgeclip.text_files import decoded, read_bytes

QUOTED = re.compile(r'"(?:[^"]|"")*"')
DOUBLED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
TOKEN = re.compile(r"([^\t]+\.\w+)#\d+\t")
"""How a line of Flickr8k.token.txt begins, which has no header: image.jpg#number."""


class Row(NamedTuple):
    """The fields of a row, and the number of its first line and its text."""

    line: int
    fields: list[str]
    text: Sequence[str]


class Table(NamedTuple):
    """A table, whose rows are read as they are asked for; `quoted` where a field may hold delimiters."""

    header: list[str]
    rows: Iterator[Row]
    delimiter: str
    quoted: bool


def read_table(path: Path) -> Table:
    """Read a table. Empty lines, and those with delimiters alone, are no rows.

    Raises:
        DataError: it can't be read or is empty; as its rows are read, a quote is not closed.
    """
    lines = io.StringIO(decoded(read_bytes(path), str(path)), newline="").readlines()
    if lines and TOKEN.match(lines[0]):
        lines = ["image\tcaption\n", *(TOKEN.sub(r"\1\t", line) for line in lines)]
        return _table(path, lines, "\t", first_line=0)
    first = next(filter(str.strip, lines), "")
    return _table(path, lines, next((mark for mark in "\t|" if mark in first), max(",;", key=first.count)))


def _table(path: Path, lines: list[str], delimiter: str, first_line: int = 1) -> Table:
    names = lines[0].strip().split(delimiter) if lines else []
    quoted = delimiter in ",;" or all(QUOTED.fullmatch(name.strip()) for name in names)
    rows = _quoted(path, lines, delimiter) if quoted else _plain(lines, delimiter, first_line)
    rows = (row for row in rows if any(map(str.strip, row.fields)))
    header = next(rows, None)
    if header is None:
        raise DataError(
            f"{path}, an empty file", expected="a header and rows", fix="write rows such as 0001.jpg,a dog runs"
        )
    return Table([name.strip() for name in header.fields], rows, delimiter, quoted)


def _quoted(path: Path, lines: list[str], delimiter: str) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    start = 0
    try:
        for fields in reader:
            yield Row(start + 1, fields, lines[start : reader.line_num])
            start = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{path}, line {start + 1} ({error})",
            expected='quotes around the whole caption, and "" for one within',
            fix=f'write it as "a ""quoted"" word{delimiter} and more"',
        ) from error


def _plain(lines: list[str], delimiter: str, first_line: int) -> Iterator[Row]:
    for number, line in enumerate(lines, first_line):
        fields = [_out_of_quotes(field.strip()) for field in line.rstrip("\r\n").split(delimiter)]
        yield Row(number, fields, [line])


def _out_of_quotes(field: str) -> str:
    return field[1:-1].replace('""', '"') if DOUBLED.fullmatch(field) else field
