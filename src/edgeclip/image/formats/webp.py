"""WebP (RFC 9649): the first picture, without profile, EXIF and XMP.

A lossy picture takes memory for its pixels alone. A lossless one, or lossless transparency, may bring tens of thousands
of tables for its codes, whose number only its decoder learns.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from edgeclip.image import orientation
from edgeclip.image.formats.bare import Bare, size_of, spliced

MAX_CHUNKS, MAX_METADATA_BYTES = 100_000, 1 << 20
EXTENDED, LOSSY, LOSSLESS, ALPHA, ANIMATION, MOVING = b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"
PIXELS = (EXTENDED, LOSSY, LOSSLESS, ALPHA, ANIMATION, MOVING)
COPIES = 3
"""Of the file, which Pillow and libwebp hold."""
KEPT_FLAGS = 0x10 | 0x02
"""Of transparency and of animation."""


def read(file: BinaryIO) -> Bare:
    """Leave out all chunks but those that the first picture is made of.

    Raises:
        OSError: there are too many chunks, or one is cut short.
    """
    kept: dict[bytes, tuple[int, int]] = {}
    turn, end = 0, size_of(file)
    for kind, at, size in _chunks(file):
        if kind == b"EXIF":
            turn = orientation.of_exif(file.read(min(size, MAX_METADATA_BYTES))) or turn
        elif kind == b"XMP ":
            turn = turn or orientation.of_xmp(file.read(min(size, MAX_METADATA_BYTES)))
        elif kind in PIXELS and kind not in kept:
            if at + size > end:
                raise OSError("truncated")
            kept[kind] = at, size
    if LOSSY in kept and ALPHA not in kept and MOVING not in kept:
        kept.pop(EXTENDED, None)
    body = [piece for kind, (at, size) in kept.items() for piece in _pieces(file, kind, at, size)]
    size = 4 + sum(8 + size + size % 2 for _, size in kept.values())
    return Bare(
        "WEBP",
        spliced(b"RIFF" + struct.pack("<I", size) + b"WEBP", *body),
        turn or 1,
        isolated=kept.keys() != {LOSSY},
        working_bytes=COPIES * size,
    )


def _pieces(file: BinaryIO, kind: bytes, at: int, size: int) -> list[bytes | tuple[BinaryIO, int, int]]:
    header, padding = kind + struct.pack("<I", size), b"\0" * (size % 2)
    if kind != EXTENDED:
        return [header, (file, at, at + size), padding]
    file.seek(at)
    flags = bytes(flag & KEPT_FLAGS for flag in file.read(min(size, 1)))
    return [header + flags, (file, at + 1, at + size), padding]


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where its body is, the body's size); the file is then at the body."""
    position = 12
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        size = int.from_bytes(header[4:], "little")
        yield header[:4], position + 8, size
        position += 8 + size + size % 2
    raise OSError("too many chunks")
