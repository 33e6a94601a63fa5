"""What a command is to work on: files, folders, and lists from a file or from standard input.

A list has one item a line, or items that end with NUL, as `find -print0` writes them, where the first ends so.
"""

from __future__ import annotations

import codecs
import os
import re
import select
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from edgeclip.errors import ConfigError
from edgeclip.image.decode import FORMATS
from edgeclip.runtime.stream import FLUSH, Flush

STDIN = "-"
BLOCK_BYTES = 1 << 16
MAX_LIST_BYTES = 1 << 20
"""Most that is read without finding the end of an item."""


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes of the files that count as images in a folder."""
    return frozenset(suffix for suffix, format_ in Image.registered_extensions().items() if format_ in FORMATS)


def check_paths(arguments: Sequence[str]) -> None:
    """Refuse an empty command line and names of nothing.

    Raises:
        ConfigError: there is no path, or nothing at one.
    """
    if not arguments:
        raise ConfigError("no paths", expected="image files, folders, or - for a list on standard input", fix="add one")
    for argument in arguments:
        if argument != STDIN and not os.path.lexists(argument):
            raise ConfigError(
                f"nothing at {argument!r}",
                expected="an image file or a folder",
                fix="give the path of one, or - for a list on standard input",
            )


def find_images(arguments: Sequence[str], stdin: BinaryIO) -> Iterator[str | Flush]:
    """Paths of images: files as they are named, whatever their suffix; those in folders; those of a list.

    Of a folder its own images come first, then those of its subfolders, each by name. What is hidden (a name that
    begins with a dot) and linked folders are left out.

    Args:
        arguments: paths; "-" stands for the list on standard input, which may name folders too.
        stdin: where that list is read from, unbuffered.

    Yields:
        Paths, relative ones as they were given; `stream.FLUSH` before waiting for more of the list.

    Raises:
        OSError: a folder can't be read.
    """
    for argument in arguments:
        if argument == STDIN:
            for item in read_list(stdin):
                if isinstance(item, Flush):
                    yield item
                elif item:
                    yield from _images_at(os.fsdecode(item))
        else:
            yield from _images_at(argument)


def _images_at(path: str) -> Iterator[str]:
    if "\0" in path or not Path(path).is_dir():
        yield path
        return
    for folder, subfolders, names in os.walk(path, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in image_suffixes():
                yield str(Path(folder, name))


def _raise(error: OSError) -> None:
    raise error


def read_texts(file: BinaryIO) -> Iterator[str | Flush]:
    """Texts of a list, empty ones too, so that the rows of a result are the lines of the file; `FLUSH` as above."""
    for item in read_list(file):
        yield item if isinstance(item, Flush) else item.decode("utf-8", "replace")


def read_list(file: BinaryIO) -> Iterator[bytes | Flush]:
    """Items of a list as they come, without their ends; `FLUSH` before waiting for more.

    Args:
        file: unbuffered, so that what has come can be told from what has not.

    Raises:
        ConfigError: an item has no end.
    """
    rest, end = b"", None
    first = True
    while True:
        if not _has_more(file):
            yield FLUSH
        block = file.read(BLOCK_BYTES)
        rest += block or b""
        if first:
            rest, first = rest.removeprefix(codecs.BOM_UTF8), False
        if end is None and (found := re.search(rb"[\0\n]", rest)):
            end = b"\0" if b"\0" in rest else found.group()
        if not block:
            break
        if end is not None:
            *items, rest = rest.split(end)
            yield from (_bare(item, end) for item in items)
        if len(rest) > MAX_LIST_BYTES:
            raise ConfigError(
                "a list without ends of lines",
                expected="one item a line",
                fix="write one path a line, or end each with NUL",
            )
    if rest:
        yield _bare(rest, end)


def _bare(item: bytes, end: bytes | None) -> bytes:
    return item if end == b"\0" else item.removesuffix(b"\r")


def _has_more(file: BinaryIO) -> bool:
    """Whether reading would not wait; where that can't be told, it is taken not to."""
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError):  # not a descriptor that can be asked, such as a file in memory or a pipe on Windows
        return True
