"""GIF (89a): the screen, the first frame and what controls it; comments and further frames are left out."""

from __future__ import annotations

from typing import BinaryIO

from edgeclip.image.formats.bare import Bare, size_of, spliced

MAX_BLOCKS = 1_000_000
EXTENSION, FRAME, END, CONTROL = b"!", b",", b";", b"\xf9"


def read(file: BinaryIO) -> Bare:
    """Leave out all extensions but the last graphic control before the first frame.

    Raises:
        OSError: there is no frame, or too much before it.
    """
    header, control = file.read(13), b""
    if header[10:11] and header[10] & 0x80:
        header += file.read(3 << (header[10] & 7) + 1)
    blocks = iter(range(MAX_BLOCKS))
    for _ in blocks:
        kind = file.read(1)
        if kind == FRAME:
            return Bare("GIF", spliced(header + control, (file, file.tell() - 1, size_of(file))))
        if kind in (END, b""):
            break
        if kind == EXTENSION:
            label = file.read(1)
            block = first = _block(file)
            while block and next(blocks, None) is not None:
                block = _block(file)
            if label == CONTROL and first:
                control = EXTENSION + CONTROL + bytes((len(first),)) + first + b"\0"
    raise OSError("no frame")


def _block(file: BinaryIO) -> bytes:
    size = file.read(1)
    return file.read(size[0]) if size else b""
