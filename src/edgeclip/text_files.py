"""Text files of others: their encoding, and a limit on what is read of them."""

from __future__ import annotations

import codecs
from pathlib import Path

from edgeclip.errors import DataError

BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
MAX_TEXT_BYTES = 2_000_000_000
"""COCO's largest file of captions has 92 MB."""


def encoding_of(start: bytes) -> str:
    """The encoding that a byte order mark tells of, else UTF-8."""
    return next((encoding for bom, encoding in BOMS if start.startswith(bom)), "utf-8")


def decoded(data: bytes, name: str) -> str:
    """A text in UTF-8, or in what its byte order mark says, which is left out.

    Raises:
        DataError: it isn't, naming the line.
    """
    try:
        return data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        raise not_text(name, data.count(b"\n", 0, error.start) + 1) from error


def not_text(name: str, line: int) -> DataError:
    """The error for a line whose bytes can't be read as text."""
    return DataError(f"{name}, line {line}, which is no UTF-8", expected="text in UTF-8", fix="save it in UTF-8")


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a file.

    Raises:
        DataError: it can't be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", expected="a file", fix="give the path of one that can be read"
        ) from error
    if len(data) > limit:
        raise DataError(f"{path}, a larger file", expected=f"at most {limit / 1e6:g} MB", fix="split it into several")
    return data
