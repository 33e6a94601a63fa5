"""AVIF: as it is, but its EXIF and XMP, which the decoder would read, are renamed.

The turn is that of the file's own boxes (`irot`, `imir`), which the decoder tells; by MIAF, EXIF's does not count.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from edgeclip.image.formats.bare import Bare

MAX_BOXES = 100_000
METADATA = {b"Exif": b"none", b"application/rdf+xml": b"application/nothing"}
HOLDERS = (b"meta", b"moov")


def read(file: BinaryIO) -> Bare:
    """Rename the items of metadata.

    Raises:
        OSError: there are too many boxes.
    """
    data = bytearray(file.read())
    position = 0
    for _ in range(MAX_BOXES):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if kind in HOLDERS:
            box = bytes(data[position : position + size])
            for name, other in METADATA.items():
                box = box.replace(name, other)
            data[position : position + len(box)] = box
        if size < 8:  # to the end of the file
            return Bare("AVIF", io.BytesIO(data), isolated=True)
        position += size
        if position >= len(data):
            return Bare("AVIF", io.BytesIO(data), isolated=True)
    raise OSError("too many boxes")
