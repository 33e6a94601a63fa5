"""When a picture was taken, by its EXIF, read without a decoder: within bounds whatever the file holds.

Source: EXIF 2.32, 4.6.5 G (DateTimeOriginal, OffsetTimeOriginal), in the TIFF 6.0 structure. Cameras' raw files are of
that structure, or hold one.
"""

from __future__ import annotations

import calendar
import os
import re
import struct
from datetime import UTC, datetime
from typing import BinaryIO

from edgeclip.image.formats.heif_items import exif_of
from edgeclip.search.rows import EARLIEST, LATEST

HEAD_BYTES = 1 << 18
"""Where EXIF begins: a JPEG has it in front, WebP and PNG may have it at their end."""
MARKS, MARK_BYTES = (b"Exif\0\0", b"eXIf", b"EXIF", b"CMT2"), 16
"""What stands before the TIFF structure: in JPEG, in PNG, in WebP, where the length follows, and in Canon's CR3."""
JPEG, SCAN = b"\xff\xd8", b"\xff\xda"
"""How a JPEG begins, and what its coded picture begins with."""
TIFF = re.compile(rb"II\*\0|MM\0\*")
AT_START = re.compile(rb"II[*U]\0|MM\0\*|IIR[OS]|MMOR")
"""TIFF, and Panasonic's and Olympus's raw files, which are of the same structure."""
EXIF_FOLDER, ORIGINAL, OFFSET_ORIGINAL = 0x8769, 0x9003, 0x9011
ASCII, LONG = 2, 4
FIRST = 4
"""Where the pointer to the first directory is."""
LONGEST = 64
DATE = re.compile(rb"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
OFFSET = re.compile(rb"([+-])(\d\d):(\d\d)")


def taken_of(file: BinaryIO) -> float | None:
    """Seconds since 1970 of DateTimeOriginal, None where a file has none that can be read.

    Without OffsetTimeOriginal the camera's clock is taken to show local time.
    """
    start = _start(file)
    moment = None if start is None else _Tiff(file, start).taken()
    return moment if moment is not None and EARLIEST <= moment < LATEST else None


def _start(file: BinaryIO) -> int | None:
    """Where the TIFF structure begins; only the file's beginning and its end are looked at."""
    head = _header(file.read(HEAD_BYTES))
    if AT_START.match(head):
        return 0
    if head[4:8] == b"ftyp" and (item := exif_of(file)):
        file.seek(item[0])
        start = TIFF.search(file.read(min(item[1], MARK_BYTES)))
        return item[0] + start.start() if start else None
    found = _after_mark(head)
    if found is None and len(head) == HEAD_BYTES:
        at = max(HEAD_BYTES, file.seek(0, os.SEEK_END) - HEAD_BYTES)
        file.seek(at)
        found = _after_mark(file.read(HEAD_BYTES))
        found = None if found is None else at + found
    return found


def _header(data: bytes) -> bytes:
    """What stands before a JPEG's coded picture, which is most of it, and before pictures that follow; else all."""
    at = len(JPEG)
    while data.startswith(JPEG) and data[at : at + 1] == JPEG[:1]:
        if data.startswith(SCAN, at):
            return data[:at]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            break
        at += 2 + length
    return data


def _after_mark(data: bytes) -> int | None:
    for mark in MARKS:
        at = data.find(mark)
        while at >= 0:
            at += len(mark)
            if start := TIFF.search(data, at, at + MARK_BYTES):
                return start.start()
            at = data.find(mark, at)
    return None


class _Tiff:
    """Two directories of a TIFF structure."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start
        self._order = "<" if self._bytes(0, 2) == b"II" else ">"

    def taken(self) -> float | None:
        """The moment, None where there is none."""
        pointer = self._entries(FIRST).get(EXIF_FOLDER)
        entries = self._entries(pointer[0] if pointer else FIRST)  # CR3 has the folder alone
        date = DATE.match(self._text(entries.get(ORIGINAL)))
        if date is None:
            return None
        try:
            moment = datetime(*(int(part) for part in date.groups()))  # type: ignore[arg-type]
        except ValueError:  # such as the month 00 of a clock that was never set
            return None
        zone = OFFSET.match(self._text(entries.get(OFFSET_ORIGINAL)))
        if zone is None:
            return _local(moment)
        shift = 60 * (60 * int(zone[2]) + int(zone[3]))
        return calendar.timegm(moment.timetuple()) - (shift if zone[1] == b"+" else -shift)

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(self._start + at)
        return self._file.read(count)

    def _number(self, at: int, kind: str) -> int:
        """A whole number; 0 where the file ends before it does."""
        data = self._bytes(at, struct.calcsize(kind))
        return int(struct.unpack(self._order + kind, data)[0]) if len(data) == struct.calcsize(kind) else 0

    def _entries(self, pointer: int) -> dict[int, tuple[int, int]]:
        """Of the directory that the number at `pointer` leads to: by tag, where its value or the pointer to it stands,
        and how many there are of it.
        """
        start = self._number(pointer, "I")
        data = self._bytes(start + 2, 12 * self._number(start, "H")) if start else b""
        entries = enumerate(struct.iter_unpack(self._order + "HHI4x", data[: len(data) // 12 * 12]))
        return {tag: (start + 2 + 12 * n + 8, count) for n, (tag, kind, count) in entries if kind in (ASCII, LONG)}

    def _text(self, entry: tuple[int, int] | None) -> bytes:
        if entry is None:
            return b""
        at, count = entry
        return self._bytes(self._number(at, "I") if count > 4 else at, min(count, LONGEST))


def _local(moment: datetime) -> float:
    try:
        return moment.timestamp()
    except (OverflowError, OSError):  # before 1970 on some systems
        return moment.replace(tzinfo=UTC).timestamp()
