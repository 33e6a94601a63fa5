"""TIFF (6.0, classic): the first directory, without the tags that don't concern its pixels."""

from __future__ import annotations

import struct
from typing import BinaryIO

from edgeclip.image import orientation
from edgeclip.image.formats.bare import Bare, size_of, spliced

ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
ORIENTATION, XMP = 274, 700
PIXELS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339),
    *(340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
"""Sizes, layout, compression and colour."""
MAX_METADATA_BYTES = 1 << 20


def read(file: BinaryIO) -> Bare:
    """Put in the directory's place a shorter one, of the tags that pixels are made of.

    Raises:
        OSError: it is not of the classic kind, or has no directory.
    """
    prefix = file.read(8)
    order = ORDERS.get(prefix[:4])
    if order is None or len(prefix) < 8:
        raise OSError("not a TIFF of the classic kind")
    (start,) = struct.unpack(order + "I", prefix[4:])
    file.seek(start)
    count = file.read(2)
    entries = file.read(12 * struct.unpack(order + "H", count)[0]) if len(count) == 2 else b""
    kept, turn = [], 0
    for at in range(0, len(entries) - 11, 12):
        entry = entries[at : at + 12]
        tag, kind, values, value = struct.unpack(order + "HHII", entry)
        if tag in PIXELS:
            kept.append(entry)
        elif tag == ORIENTATION:
            turn = orientation.valid(value >> 16 if kind == 3 and order == ">" else value) or turn
        elif tag == XMP and 4 < values <= MAX_METADATA_BYTES:
            file.seek(value)
            turn = turn or orientation.of_xmp(file.read(values))
    if not kept:
        raise OSError("no directory of a picture")
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    whole = spliced((file, 0, start), directory, (file, start + len(directory), size_of(file)))
    return Bare("TIFF", whole, turn or 1, isolated=True)
