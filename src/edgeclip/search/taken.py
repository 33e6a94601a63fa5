"""When a picture was taken, by its EXIF, read without a decoder: within bounds whatever the file holds.

Source: EXIF 2.32, 4.6.5 G (DateTimeOriginal, OffsetTimeOriginal), in the TIFF 6.0 structure.
"""

from __future__ import annotations

import calendar
import re
import struct
from datetime import UTC, datetime
from typing import BinaryIO

HEAD_BYTES = 1 << 18
"""Where EXIF begins: a JPEG has it in front, WebP and PNG may have it at their end."""
MARKS = (b"Exif\0\0", b"eXIf", b"EXIF")
"""What stands before the TIFF structure: in JPEG and HEIC, in PNG, and in WebP, where the length follows."""
TIFF = re.compile(rb"II\*\0|MM\0\*")
EXIF_FOLDER, ORIGINAL, OFFSET_ORIGINAL = 0x8769, 0x9003, 0x9011
ASCII, LONG = 2, 4
DATE = re.compile(rb"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
OFFSET = re.compile(rb"([+-])(\d\d):(\d\d)")


def taken_of(file: BinaryIO) -> float | None:
    """Seconds since 1970 of DateTimeOriginal, None where a file has none that can be read.

    Without OffsetTimeOriginal the camera's clock is taken to show local time.
    """
    head = file.read(HEAD_BYTES)
    found = _in(head)
    if found is None and len(head) == HEAD_BYTES:
        size = file.seek(0, 2)
        file.seek(max(HEAD_BYTES, size - HEAD_BYTES))
        found = _in(file.read(HEAD_BYTES))
    return found


def _in(data: bytes) -> float | None:
    if TIFF.match(data):
        return _of_tiff(data)
    for mark in MARKS:
        at = data.find(mark)
        if at >= 0 and (start := TIFF.search(data, at + len(mark), at + len(mark) + 16)):
            return _of_tiff(data[start.start() :])
    return None


def _of_tiff(data: bytes) -> float | None:
    order = "<" if data[:2] == b"II" else ">"
    folder = _entries(data, 4, order).get(EXIF_FOLDER)
    if folder is None:
        return None
    entries = _entries(data, folder[0], order)
    date = DATE.match(_text(data, entries.get(ORIGINAL), order))
    if date is None:
        return None
    try:
        moment = datetime(*(int(part) for part in date.groups()))  # type: ignore[arg-type]
    except ValueError:  # such as the month 00 of a clock that was never set
        return None
    zone = OFFSET.match(_text(data, entries.get(OFFSET_ORIGINAL), order))
    if zone is None:
        return _local(moment)
    shift = 60 * (60 * int(zone[2]) + int(zone[3]))
    return calendar.timegm(moment.timetuple()) - (shift if zone[1] == b"+" else -shift)


def _local(moment: datetime) -> float:
    try:
        return moment.timestamp()
    except (OverflowError, OSError):  # before 1970 on some systems
        return moment.replace(tzinfo=UTC).timestamp()


def _entries(data: bytes, pointer: int, order: str) -> dict[int, tuple[int, int]]:
    """Of a directory that the number at `pointer` leads to: by tag, where its value or the pointer to it stands, and
    how many there are of it.
    """
    if pointer + 4 > len(data):
        return {}
    (start,) = struct.unpack_from(order + "I", data, pointer)
    if start + 2 > len(data):
        return {}
    (count,) = struct.unpack_from(order + "H", data, start)
    found = {}
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, at)
        if kind in (ASCII, LONG):
            found[tag] = at + 8, number
    return found


def _text(data: bytes, entry: tuple[int, int] | None, order: str) -> bytes:
    if entry is None:
        return b""
    at, count = entry
    if count > 4:
        (at,) = struct.unpack_from(order + "I", data, at)
    return data[at : at + min(count, 64)]
