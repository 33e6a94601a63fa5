"""HEIF and AVIF (ISO 23008-12): as they are, but their EXIF and XMP, which the decoder would read, are renamed.

The turn is that of the file's own boxes (`irot`, `imir`), which the decoder tells or applies; by MIAF, EXIF's does not
count.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from PIL import ImageFile

from edgeclip.image.formats.bare import Bare

MAX_BOXES = 100_000
METADATA = {b"Exif": b"none", b"application/rdf+xml": b"application/nothing"}
HOLDERS = (b"meta", b"moov")


def read_avif(file: BinaryIO) -> Bare:
    """See `_without_metadata`."""
    return Bare("AVIF", _without_metadata(file), isolated=True)


def read_heif(file: BinaryIO) -> Bare:
    """See `_without_metadata`."""
    return Bare("HEIF", _without_metadata(file), isolated=True)


def _without_metadata(file: BinaryIO) -> BinaryIO:
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
        position += size
        if size < 8 or position >= len(data):  # to the end of the file
            return io.BytesIO(data)
    raise OSError("too many boxes")


def plugin() -> type[ImageFile.ImageFile]:
    """The decoder of HEIF, without what lies beside the picture, and without threads, which take room; to be used in a
    process apart.
    """
    from pillow_heif import HeifImageFile, options

    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return HeifImageFile
