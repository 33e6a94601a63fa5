"""JPEG (ITU-T T.81), as libjpeg walks through it: only what it decodes, and how much of that it must keep.

Thumbnails, comments, profiles, and the further pictures of an MPO are left out.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import BinaryIO

from edgeclip.image import orientation
from edgeclip.image.formats.bare import Bare, size_of, spliced

START, END = b"\xff\xd8", b"\xff\xd9"
BLOCK_BYTES = 1 << 16
MAX_SEGMENTS = 100_000
MAX_HEADER_BYTES = 1 << 20
MAX_SCANNED = 2_000_000_000
"""Coefficients times scans: each scan of a progressive file may visit every block for a few bytes of file."""

MARKER = re.compile(rb"\xff+([^\x00\xff])")
END_OF_CODED = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")
"""A marker but those that may stand within or between the coded data of scans: TEM and RST, which have no length."""
ALONE = (0x01, *range(0xD0, 0xD9))
TABLES = {0xC4, 0xCC, 0xDB, 0xDD}  # Huffman and arithmetic tables, quantisation, restart interval
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCALABLE, PROGRESSIVE = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}, {0xC2, 0xCA}
SCAN, APP0, APP1, ADOBE = 0xDA, 0xE0, 0xE1, 0xEE
BETWEEN_SCANS = TABLES | {SCAN, 0xDC, 0xFE} | set(range(0xE0, 0xF0))
COLOUR = {APP0: b"JFIF\0", ADOBE: b"Adobe"}
READ = FRAMES | TABLES | {SCAN, APP0, APP1, ADOBE}
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class Frame:
    """What SOF tells: its marker, (width, height), and (across, down) sampling factors of each component."""

    marker: int
    size: tuple[int, int]
    sampling: tuple[tuple[int, int], ...]

    @property
    def coefficients(self) -> int:
        """How many libjpeg keeps of a file in several scans: whole MCUs of all components."""
        across = max(h for h, _ in self.sampling)
        down = max(v for _, v in self.sampling)
        mcus = -(-self.size[0] // (8 * across)) * -(-self.size[1] // (8 * down))
        return mcus * 64 * sum(h * v for h, v in self.sampling)


def read(file: BinaryIO) -> Bare:
    """Leave out all but tables, frame and coded data.

    Raises:
        OSError: no picture begins here, or it has too many scans for its size.
    """
    kept, turn, frame = [START], 0, None
    file.seek(len(START))
    for _ in range(MAX_SEGMENTS):
        marker = _next_marker(file)
        if marker == END[1]:
            break
        if marker in ALONE:
            continue
        length = file.read(2)
        size = max(int.from_bytes(length, "big"), 2) - 2
        if marker not in READ:
            file.seek(size, io.SEEK_CUR)
            continue
        body = file.read(size)
        segment = bytes((0xFF, marker)) + length + body
        if marker == SCAN:
            return _bare(file, b"".join(kept) + segment, frame, body[0] if body else 0, turn)
        if marker in FRAMES:
            frame = _frame(marker, body)
        elif marker == APP1 and not turn:
            turn = orientation.of_exif(body) if body.startswith(EXIF) else 0
            turn = turn or (orientation.of_xmp(body) if body.startswith(XMP) else 0)
        if marker in FRAMES | TABLES or body.startswith(COLOUR.get(marker, segment)):
            kept.append(segment)
            if sum(map(len, kept)) > MAX_HEADER_BYTES:
                raise OSError("too large tables")
    raise OSError("no coded data")


def _next_marker(file: BinaryIO) -> int:
    """The marker that comes next, in nearly all files at once.

    Raises:
        OSError: the file ends before.
    """
    block = file.read(2)
    if len(block) == 2 and block[0] == 0xFF and block[1] not in (0, 0xFF):
        return block[1]
    while block:
        block += file.read(BLOCK_BYTES)
        match = MARKER.search(block)
        if match:
            file.seek(match.end() - len(block), io.SEEK_CUR)
            return match[1][0]
        file.seek(-1, io.SEEK_CUR)
        block = file.read(1) if len(block) > BLOCK_BYTES else b""
    raise OSError("no coded data")


def _frame(marker: int, body: bytes) -> Frame:
    sampling = tuple((byte >> 4, byte & 15) for byte in body[7::3])
    if len(body) < 9 or not all(h and v for h, v in sampling):
        raise OSError("a damaged frame header")
    return Frame(marker, (int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")), sampling)


def _bare(file: BinaryIO, header: bytes, frame: Frame | None, components: int, turn: int) -> Bare:
    """`file` is after the header of its first scan."""
    if frame is None:
        raise OSError("no frame header")
    start, working_bytes = file.tell(), 0
    in_scans = frame.marker in PROGRESSIVE or components < len(frame.sampling)
    if in_scans:
        scans, _ = _walk(file, start, in_scans=True)
        if scans * frame.coefficients > MAX_SCANNED:
            raise OSError(f"{frame.size[0]}x{frame.size[1]} pixels in {scans} scans, which would take too long")
        # Each coefficient is kept as a 16-bit number until the last scan.
        working_bytes = 2 * frame.coefficients + size_of(file)

    def repaired(padding: bytes) -> BinaryIO:
        _, stop = _walk(file, start, in_scans=in_scans)
        return spliced(header, (file, start, stop), padding + END)

    return Bare(
        "JPEG",
        spliced(header, (file, start, size_of(file))),
        orientation=turn or 1,
        working_bytes=working_bytes,
        can_scale=frame.marker in SCALABLE,
        repaired=repaired,
    )


def _walk(file: BinaryIO, start: int, *, in_scans: bool) -> tuple[int, int]:
    """How many scans there are, and where coded data end: at a marker that can't stand between scans, or with the file.

    Raises:
        OSError: there are too many segments.
    """
    file.seek(start)
    data = file.read()
    scans, position = 1, 0
    for _ in range(MAX_SEGMENTS):
        match = END_OF_CODED.search(data, position)
        if match is None:
            return scans, start + len(data)
        marker = match[1][0]
        if marker not in BETWEEN_SCANS or (marker == SCAN and not in_scans):
            return scans, start + match.start()
        scans += marker == SCAN
        position = match.end() + max(int.from_bytes(data[match.end() : match.end() + 2], "big"), 2)
    raise OSError("too many segments")
