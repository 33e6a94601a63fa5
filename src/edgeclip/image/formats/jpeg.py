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
MAX_SCANNED = 4_000_000_000
"""Coefficients times scans: each scan of a progressive file may visit every block for a few bytes of file.

Measured: 0.1 to 0.25 ns each where a scan brings no data, 1.4 ns with arithmetic coding, 6 ns of noise, which takes a
file of 0.14 bytes each.
"""
MAX_REPAIRED = MAX_SCANNED // 4
"""A repair decodes twice more."""

MARKER = re.compile(rb"\xff[^\x00\xff]")
END_OF_CODED = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""A marker but those that may stand within or between the coded data of scans: TEM and RST, which have no length."""
RESTART, RESTARTS = re.compile(rb"\xff[\xd0-\xd7]"), [bytes((0xFF, 0xD0 + number)) for number in range(8)]
JUNK = b"\xb5\x2d\x6a\x93" * 256
ALONE = (0x01, *range(0xD0, 0xD9))
TABLES = {0xC4, 0xCC, 0xDB, 0xDD}  # Huffman and arithmetic tables, quantisation, restart interval
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCALABLE, PROGRESSIVE = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}, {0xC2, 0xCA}
SCAN, APP0, APP1, ADOBE = 0xDA, 0xE0, 0xE1, 0xEE
SCAN_MARKER = b"\xff\xda"
BETWEEN_SCANS = TABLES | {SCAN, 0xDC, 0xFE} | set(range(0xE0, 0xF0))
COLOUR = {APP0: (b"JFIF\0", 14), ADOBE: (b"Adobe", 12)}
"""What these begin with, and how long they must be for libjpeg to heed them."""
READ = FRAMES | TABLES | {SCAN, APP0, APP1, ADOBE}
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class Frame:
    """What SOF tells: its marker, (width, height), and of each component the (across, down) sampling factors."""

    marker: int
    size: tuple[int, int]
    components: bytes
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
    room = MAX_HEADER_BYTES
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
            return _bare(file, b"".join(kept) + segment, frame, body, turn)
        if marker in FRAMES:
            frame = _frame(marker, body)
        elif marker == APP1 and not turn:
            turn = orientation.of_exif(body) if body.startswith(EXIF) else 0
            turn = turn or (orientation.of_xmp(body) if body.startswith(XMP) else 0)
        if marker in FRAMES | TABLES or _tells_colour(marker, body):
            kept.append(segment)
            room -= size
            if room < 0:
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
            return match[0][1]
        file.seek(-1, io.SEEK_CUR)
        block = file.read(1) if len(block) > BLOCK_BYTES else b""
    raise OSError("no coded data")


def _tells_colour(marker: int, body: bytes) -> bool:
    name, size = COLOUR.get(marker, (b"", 1 << 16))
    return body.startswith(name) and len(body) >= size


def _frame(marker: int, body: bytes) -> Frame:
    sampling = tuple((byte >> 4, byte & 15) for byte in body[7::3])
    if len(body) < 9 or not all(h and v for h, v in sampling):
        raise OSError("a damaged frame header")
    size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
    return Frame(marker, size, body[6::3], sampling)


def _bare(file: BinaryIO, header: bytes, frame: Frame | None, scan: bytes, turn: int) -> Bare:
    """`file` is after `scan`, the header of its first scan."""
    if frame is None or not scan:
        raise OSError("no frame header")
    start, working_bytes, scanned = file.tell(), 0, frame.coefficients
    in_scans = frame.marker in PROGRESSIVE or scan[0] < len(frame.components)
    if in_scans:
        scans, _ = _walk(file, start, in_scans=True)
        scanned *= 1 + len(scans)
        if scanned > MAX_SCANNED:
            raise OSError(
                f"{frame.size[0]}x{frame.size[1]} pixels in {1 + len(scans)} scans, which would take too long"
            )
        # Each coefficient is kept as a 16-bit number until the last scan.
        working_bytes = 2 * frame.coefficients + size_of(file)

    def repaired() -> list[BinaryIO]:
        more_scans, stop = _walk(file, start, in_scans=in_scans)
        if in_scans and not _are_all(frame, [scan, *more_scans]):
            raise OSError("truncated between scans")
        paddings = (b"", JUNK, _next_restart(file, start, stop) + JUNK)
        return [spliced(header, (file, start, stop), padding + END) for padding in paddings]

    return Bare(
        "JPEG",
        spliced(header, (file, start, size_of(file))),
        orientation=turn or 1,
        working_bytes=working_bytes,
        can_scale=frame.marker in SCALABLE,
        repaired=repaired if scanned <= MAX_REPAIRED else None,
    )


def _walk(file: BinaryIO, start: int, *, in_scans: bool) -> tuple[list[bytes], int]:
    """Headers of further scans, and where coded data end: at a marker that can't stand between scans, or with the file.

    Raises:
        OSError: there are too many segments.
    """
    file.seek(start)
    data = file.read()
    scans: list[bytes] = []
    position = 0
    for _ in range(MAX_SEGMENTS):
        match = END_OF_CODED.search(data, position)
        if match is None:
            return scans, start + len(data.rstrip(b"\xff"))
        marker, at = match[0][1], match.end()
        if marker not in BETWEEN_SCANS or (marker == SCAN and not in_scans):
            return scans, start + match.start()
        position = at + max(int.from_bytes(data[at : at + 2], "big"), 2)
        if position > len(data):
            return scans, start + match.start()
        if marker == SCAN:
            scans.append(data[at + 2 : position])
    raise OSError("too many segments")


def _next_restart(file: BinaryIO, start: int, stop: int) -> bytes:
    """The restart marker that the last scan's next interval begins with."""
    file.seek(start)
    data = file.read(stop - start)
    numbers = RESTART.findall(data, data.rfind(SCAN_MARKER) + 1)
    return RESTARTS[(numbers[-1][1] + 1) % 8 if numbers else 0]


def _are_all(frame: Frame, scans: list[bytes]) -> bool:
    """Whether the scans bring every coefficient of every component to its last bit."""
    missing = {(component, k) for component in frame.components for k in range(64)}
    for scan in scans:
        components, rest = scan[1 : 1 + 2 * scan[0] : 2], scan[1 + 2 * scan[0] :]
        if frame.marker not in PROGRESSIVE:
            first, last, bit = 0, 63, 0
        elif len(rest) == 3:
            first, last, bit = rest[0], rest[1], rest[2] & 15
        else:
            return False
        if bit == 0:
            missing -= {(component, k) for component in components for k in range(first, last + 1)}
    return not missing
