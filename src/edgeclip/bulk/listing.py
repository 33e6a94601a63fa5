"""What a command is to work on: files, folders, and lists from a file or from standard input.

A list has one item a line, or items that end with NUL, as `find -print0` writes them, where the first ends so. It is in
UTF-8, or in what a byte order mark at its beginning says; paths may be any bytes.
"""

from __future__ import annotations

import codecs
import os
import re
import select
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from edgeclip.errors import ConfigError
from edgeclip.files import printable
from edgeclip.image import extras
from edgeclip.image.decode import FORMATS
from edgeclip.runtime.stream import FLUSH, Flush
from edgeclip.text_files import BOMS, encoding_of, not_text

STDIN = "-"
BLOCK_BYTES = 1 << 16
MAX_LIST_BYTES = 1 << 20
"""Most that is read without finding the end of an item."""
MAX_KINDS = 8
"""Kinds of skipped files that are told of; a folder may have a hundred."""


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes of the files that count as images in a folder."""
    formats = {kind for kind in FORMATS if not extras.is_missing(kind)} | {"MPO"}  # a JPEG with more after the first
    by_pillow = {suffix for suffix, format_ in Image.registered_extensions().items() if format_ in formats}
    return frozenset(by_pillow.union(*(extras.SUFFIXES[kind] for kind in extras.SUFFIXES if kind in formats)))


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


def find_images(
    arguments: Sequence[str], stdin: BinaryIO, skipped: Counter[str] | None = None
) -> Iterator[str | Flush]:
    """Paths of images: files as they are named, whatever their suffix; those in folders; those of a list.

    Of a folder its own images come first, then those of its subfolders, each by name. What is hidden (a name that
    begins with a dot) is left out; so are other files and linked folders, which are counted.

    Args:
        arguments: paths; "-" stands for the list on standard input, which may name folders too.
        stdin: where that list is read from, unbuffered.
        skipped: where the other files of folders are counted, by suffix, as far as the images were asked for.

    Yields:
        Paths, relative ones as they were given; `stream.FLUSH` before waiting for more of the list.

    Raises:
        OSError: a folder can't be read.
    """
    skipped = Counter() if skipped is None else skipped
    for argument in arguments:
        if argument == STDIN:
            for item in read_list(stdin):
                if isinstance(item, Flush):
                    yield item
                elif item:
                    yield from _images_at(os.fsdecode(item), skipped)
        else:
            yield from _images_at(argument, skipped)


def _images_at(path: str, skipped: Counter[str]) -> Iterator[str]:
    if "\0" in path or not Path(path).is_dir():
        yield path
        return
    for folder, subfolders, names in os.walk(path, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        skipped["linked folder"] += sum(Path(folder, name).is_symlink() for name in subfolders)
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in image_suffixes():
                yield str(Path(folder, name))
            else:
                skipped[suffix or "without suffix"] += 1


def _raise(error: OSError) -> None:
    raise error


def in_words(skipped: Counter[str]) -> str:
    """Such as "12 .heic, 3 .mov"; empty where nothing was skipped. The extras that would have read some are named."""
    kinds = [f"{count} {printable(kind)}" for kind, count in skipped.most_common() if count]
    others = f" and {len(kinds) - MAX_KINDS} other kinds" if len(kinds) > MAX_KINDS else ""
    missing = sorted({extra for kind, count in skipped.items() if count and (extra := extras.extra_of(kind))})
    advice = f"; more with pip install 'edgeclip[{','.join(missing)}]'" if missing else ""
    return ", ".join(kinds[:MAX_KINDS]) + others + advice


def read_texts(file: BinaryIO) -> Iterator[str | Flush]:
    """Texts of a list, empty ones too, so that the rows of a result are the lines of the file; `FLUSH` as above.

    Raises:
        ConfigError: it is no list, see `read_list`.
        DataError: a text is not in UTF-8.
    """
    line = 0
    for item in read_list(file):
        if isinstance(item, Flush):
            yield item
            continue
        line += 1
        try:
            yield item.decode()
        except UnicodeDecodeError as error:
            raise not_text("`texts`", line) from error


def read_list(file: BinaryIO) -> Iterator[bytes | Flush]:
    """Items of a list as they come, without their ends; `FLUSH` before waiting for more.

    Args:
        file: unbuffered, so that what has come can be told from what has not.

    Raises:
        ConfigError: an item has no end, or most are single bytes, as in UTF-16 without a byte order mark.
    """
    rest, end = b"", None
    for block in _in_utf8(file):
        if isinstance(block, Flush):
            yield block
            continue
        rest += block
        if end is None and (found := re.search(rb"[\0\n]", rest)):
            end = b"\0" if b"\0" in rest else found.group()
            if end == b"\0" and _is_utf16(rest.split(end)[:-1]):
                raise _no_list("of single bytes, as UTF-16 without a byte order mark is")
        if end is not None:
            *items, rest = rest.split(end)
            yield from (_bare(item, end) for item in items)
        if len(rest) > MAX_LIST_BYTES:
            raise _no_list("without ends of lines")
    if rest:
        yield from ([_bare(rest, end)] if end else rest.removesuffix(b"\r").split(b"\r"))


def _in_utf8(file: BinaryIO) -> Iterator[bytes | Flush]:
    """Blocks of a file without its byte order mark, in UTF-8 where that says another encoding; `FLUSH` as above."""
    start, convert = b"", None
    while True:
        if not _has_more(file):
            yield FLUSH
        block = file.read(BLOCK_BYTES) or b""
        ended = not block
        if convert is None:
            start += block
            if not ended and any(mark.startswith(start) for mark, _ in BOMS):
                continue  # the rest of a mark may come
            convert, block = _converter(encoding_of(start)), start.removeprefix(codecs.BOM_UTF8)
        yield convert(block, ended)
        if ended:
            return


def _converter(encoding: str) -> Callable[[bytes, bool], bytes]:
    """From a block in some encoding, and whether it is the last, to UTF-8; what should be that already is left as it
    is, for paths may be any bytes.
    """
    if encoding in ("utf-8", "utf-8-sig"):
        return lambda block, ended: block
    decoder = codecs.getincrementaldecoder(encoding)()

    def convert(block: bytes, ended: bool) -> bytes:
        try:
            return decoder.decode(block, ended).encode()
        except UnicodeError as error:
            raise _no_list(f"that is no {encoding.upper()}, although it begins so") from error

    return convert


def _is_utf16(items: list[bytes]) -> bool:
    return len(items) > 1 and 4 * sum(len(item) < 2 for item in items) > 3 * len(items)


def _no_list(trouble: str) -> ConfigError:
    return ConfigError(
        f"a list {trouble}", expected="one item a line, in UTF-8", fix="write one a line, or end each with NUL"
    )


def _bare(item: bytes, end: bytes | None) -> bytes:
    return item if end == b"\0" else item.removesuffix(b"\r")


def _has_more(file: BinaryIO) -> bool:
    """Whether reading would not wait; where that can't be told, it is taken not to."""
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError):  # not a descriptor that can be asked, such as a file in memory or a pipe on Windows
        return True
