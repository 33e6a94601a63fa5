"""WebP (RFC 9649): the first picture, without profile, EXIF and XMP.

A lossy picture takes memory for its pixels alone. A lossless one, or lossless transparency, may bring tens of thousands
of tables for its codes, whose number only its decoder learns.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from edgeclip.image import orientation
from edgeclip.image.formats.bare import Bare

MAX_CHUNKS, MAX_METADATA_BYTES = 100_000, 1 << 20
EXTENDED, LOSSY, LOSSLESS, ALPHA, ANIMATION, MOVING = b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"
KEPT_FLAGS = 0x10 | 0x02
"""Of transparency and of animation."""


def read(file: BinaryIO) -> Bare:
    """Leave out all chunks but those that the first picture is made of.

    Raises:
        OSError: there are too many chunks, or one is cut short.
    """
    kept: dict[bytes, bytes] = {}
    turn = 0
    for kind, size in _chunks(file):
        if kind == b"EXIF":
            turn = orientation.of_exif(file.read(min(size, MAX_METADATA_BYTES))) or turn
        elif kind == b"XMP ":
            turn = turn or orientation.of_xmp(file.read(min(size, MAX_METADATA_BYTES)))
        elif kind in (EXTENDED, LOSSY, LOSSLESS, ALPHA, ANIMATION, MOVING) and kind not in kept:
            kept[kind] = file.read(size)
            if len(kept[kind]) < size:
                raise OSError("truncated")
    if kept.get(EXTENDED):
        kept[EXTENDED] = bytes((kept[EXTENDED][0] & KEPT_FLAGS,)) + kept[EXTENDED][1:]
    if LOSSY in kept and ALPHA not in kept and MOVING not in kept:
        kept.pop(EXTENDED, None)
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in kept.items()
    )
    # Pillow and libwebp hold a copy each.
    return Bare(
        "WEBP",
        io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body),
        turn or 1,
        isolated=kept.keys() != {LOSSY},
        working_bytes=4 * len(body),
    )


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    position = 12
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        size = int.from_bytes(header[4:], "little")
        yield header[:4], size
        position += 8 + size + size % 2
    raise OSError("too many chunks")
