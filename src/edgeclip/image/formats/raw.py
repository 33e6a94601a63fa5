"""BMP and PPM, rows as they are; but some kinds of them are decoded in Python, a number at a time."""

from __future__ import annotations

import re
from typing import BinaryIO

from edgeclip.image.formats.bare import Bare

BMP_PLAIN = (0, 3)
"""Compressions of a BMP: none, and none with masks."""
RAW_PPM = re.compile(rb"P4\s+\d{1,9}\s+\d{1,9}\s|P[56]\s+\d{1,9}\s+\d{1,9}\s+255\s|P5\s+\d{1,9}\s+\d{1,9}\s+65535\s")
"""Headers, without comments, before rows of bits, of bytes and of pairs of bytes."""
HEADER_BYTES = 64


def read_bmp(file: BinaryIO) -> Bare:
    """Tell run-length encoding from rows."""
    header = file.read(HEADER_BYTES)
    file.seek(0)
    is_old = header[14:18] == b"\x0c\0\0\0"
    compression = int.from_bytes(header[30:34], "little")
    return Bare("BMP", file, isolated=not is_old and compression not in BMP_PLAIN)


def read_ppm(file: BinaryIO) -> Bare:
    """Tell rows of bytes from what is written in digits, or has to be scaled."""
    header = file.read(HEADER_BYTES)
    file.seek(0)
    return Bare("PPM", file, isolated=not RAW_PPM.match(header))
