"""PNG (W3C, third edition): header, palette, transparency and the rows; of all other chunks only how it is turned."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from edgeclip.image import orientation
from edgeclip.image.formats.bare import Bare, size_of, spliced

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
MAX_CHUNKS = 100_000
MAX_METADATA_BYTES = 1 << 20
METADATA, MAX_TRIES = (b"eXIf", b"iTXt", b"zTXt", b"tEXt"), 8
"""What may tell the turn, and how many that are to be inflated are looked into."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
TRANSPARENCY_BYTES = {0: {2}, 2: {6}, 3: set(range(1, 257))}
"""Sizes of tRNS by colour type; another is no reason to leave out a picture."""
XMP, RAW_EXIF = b"XML:com.adobe.xmp", (b"Raw profile type exif", b"Raw profile type APP1")


def read(file: BinaryIO) -> Bare:
    """Leave out all chunks but those that pixels are made of.

    Raises:
        OSError: there are no rows, or too many chunks.
    """
    kept, exif, xmp, tries = [SIGNATURE], 0, 0, 0
    start = stop = row_bytes = colour = 0
    for kind, at, size in _chunks(file):
        if kind == b"IDAT":
            start = start or at - 8
            if stop in (0, at - 8):
                stop = at + size + 4
        elif kind in (b"IHDR", b"PLTE", b"tRNS") and not start and size <= 768:
            body = file.read(size)
            checksum = file.read(4)
            if kind == b"IHDR" and size == 13:
                width, _, depth, colour = struct.unpack_from(">IIBB", body)
                row_bytes = width * depth * CHANNELS.get(colour, 4) // 8 + 1
            if kind != b"tRNS" or _is_transparency(colour, body, checksum):
                kept.append(struct.pack(">I", size) + kind + body + checksum)
        elif kind in METADATA and size <= MAX_METADATA_BYTES and tries < MAX_TRIES:
            body = file.read(size)
            tries += body.startswith((XMP, *RAW_EXIF))
            exif = exif or (orientation.of_exif(body) if kind == b"eXIf" else _raw_exif(kind, body))
            xmp = xmp or (_xmp(body) if kind == b"iTXt" else 0)
    if not start:
        raise OSError("no rows")
    size = size_of(file)
    rows = spliced(b"".join(kept), (file, start, min(stop, size)), END if stop <= size else b"")
    return Bare("PNG", rows, exif or xmp or 1, working_bytes=3 * row_bytes)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where its body is, the body's size) up to the end; the file is then at the body."""
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            return
        size = int.from_bytes(header[:4], "big")
        yield header[4:], position + 8, size
        position += size + 12
    raise OSError("too many chunks")


def _is_transparency(colour: int, body: bytes, checksum: bytes) -> bool:
    return len(body) in TRANSPARENCY_BYTES.get(colour, ()) and checksum == struct.pack(">I", zlib.crc32(b"tRNS" + body))


def _raw_exif(kind: bytes, body: bytes) -> int:
    """ImageMagick's EXIF: a name, a length and hexadecimal digits as text."""
    name, _, text = body.partition(b"\0")
    if kind == b"iTXt" or name not in RAW_EXIF:
        return 0
    digits = b"".join((text if kind == b"tEXt" else _inflated(text[1:])).split(b"\n")[3:])
    try:
        return orientation.of_exif(bytes.fromhex(digits.decode("ascii", "replace")))
    except ValueError:
        return 0


def _xmp(body: bytes) -> int:
    name, _, rest = body.partition(b"\0")
    if name != XMP or len(rest) < 2:
        return 0
    text = rest[2:].split(b"\0", 2)[-1]
    return orientation.of_xmp(_inflated(text) if rest[0] else text)


def _inflated(data: bytes) -> bytes:
    """What deflated data begin with."""
    try:
        return zlib.decompressobj().decompress(data, MAX_METADATA_BYTES)
    except zlib.error:
        return b""
