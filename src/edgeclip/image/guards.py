"""What an image file's structure tells before it is decoded: whether small parts of it would cost much time or memory.

All of these raise OSError, as a damaged file does.
"""

from __future__ import annotations

import io
import re
import struct

MAX_READS = 100_000
"""A file of millions of empty chunks or segments would keep Pillow's parsers busy for minutes."""
MAX_SEGMENTS = 10_000
MAX_TIFF_ENTRIES = 32_768
MAX_TIFF_TILE = 4096

# The start of a JPEG segment that has a length, or the end of the image.
SEGMENT = re.compile(rb"\xff[^\x00\xd0-\xd8\xff]")
TIFF_TILE_SIZES = (322, 323)
TIFF_INTEGERS, TIFF_BYTES = {3: "H2x", 4: "I"}, (1, 2, 6, 7)


class Metered(io.BufferedReader):
    """A file that can be read a limited number of times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does.

        Raises:
            OSError: it was done `MAX_READS` times.
        """
        self.reads += 1
        if self.reads > MAX_READS:
            raise OSError("too many parts")
        return super().read(size)


def count_scans(data: bytes) -> int:
    """Walk from segment to segment; in the coded data after a scan's header, no marker occurs but restarts."""
    position, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        match = SEGMENT.search(data, position)
        if match is None or match[0] == b"\xff\xd9":
            return scans
        scans += match[0] == b"\xff\xda"
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    raise OSError("too many segments")


def check_tiff(file: Metered) -> None:
    """Refuse a TIFF whose first directory would make Pillow build endless lists of strips or decode giant tiles.

    Anything that is not TIFF passes. So does a damaged one, for Pillow to refuse.
    """
    prefix = file.read(4)
    if prefix[:2] in (b"II", b"MM"):
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(prefix)
        if order is None:
            raise OSError("not a TIFF of the classic kind")
        file.seek(struct.unpack(order + "I", file.read(4))[0])
        (count,) = struct.unpack(order + "H", file.read(2))
        for tag, kind, values, value in struct.iter_unpack(order + "HHI4s", file.read(12 * count)):
            if values > MAX_TIFF_ENTRIES and kind not in TIFF_BYTES:
                raise OSError(f"too many entries in tag {tag}")
            if tag in TIFF_TILE_SIZES:
                size = struct.unpack(order + TIFF_INTEGERS.get(kind, "4x"), value)
                if values != 1 or not size or size[0] > MAX_TIFF_TILE:
                    raise OSError("too large a tile")
    file.seek(0)
