"""Where a HEIF or AVIF has its EXIF, read without a decoder: within bounds whatever the file holds.

Source: ISO 14496-12, 8.11 (`meta`, `iinf`, `iloc`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

MAX_FILE_BYTES, MAX_META_BYTES, MAX_BOXES = 1 << 40, 1 << 20, 1000
INFO, PLACES = b"iinf", b"iloc"


def exif_of(file: BinaryIO) -> tuple[int, int] | None:
    """Where the EXIF item is, and how many bytes it has; None where there is none that can be found."""
    meta = _meta(file)
    boxes = dict(_boxes(meta[4:])) if meta else {}
    item = _exif_item(boxes.get(INFO, b""))
    return None if item is None else _place(boxes.get(PLACES, b""), item)


def _meta(file: BinaryIO) -> bytes:
    """The content of the file's `meta`."""
    position = 0
    for _ in range(MAX_BOXES):
        file.seek(position)
        header = file.read(8)
        size = int.from_bytes(header[:4], "big")
        if header[4:] == b"meta":
            return file.read(min(max(size - 8, 0), MAX_META_BYTES))
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        position += size
        if size < 8 or position > MAX_FILE_BYTES:
            break
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of boxes that follow each other."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size < 8:
            return
        yield data[position + 4 : position + 8], data[position + 8 : position + size]
        position += size


def _exif_item(info: bytes) -> int | None:
    """The number of the item whose type is Exif."""
    entries = info[6:] if info[:1] == b"\0" else info[8:]
    for kind, entry in _boxes(entries):
        wide = 4 if entry[:1] == b"\3" else 2
        if kind == b"infe" and entry[:1] in (b"\2", b"\3") and entry[6 + wide : 10 + wide] == b"Exif":
            return int.from_bytes(entry[4 : 4 + wide], "big")
    return None


def _place(places: bytes, item: int) -> tuple[int, int] | None:
    """The first extent of an item that lies in the file itself."""
    version, sizes = places[:1], places[4:6]
    if len(sizes) < 2 or version > b"\2":
        return None
    of_offset, of_length, of_base = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    of_index = sizes[1] & 15 if version > b"\0" else 0
    wide = 4 if version == b"\2" else 2
    position = 6 + wide

    def number(count: int) -> int:
        nonlocal position
        position += count
        return int.from_bytes(places[position - count : position], "big")

    while position < len(places):
        found, method = number(wide), number(2) & 15 if version > b"\0" else 0
        number(2)
        base, extents = number(of_base), number(2)
        after = position + extents * (of_index + of_offset + of_length)
        if found == item:
            number(of_index)
            start, length = base + number(of_offset), number(of_length)
            return (start, length) if extents and method == 0 and start < MAX_FILE_BYTES else None
        position = after
    return None
