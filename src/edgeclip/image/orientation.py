"""How a picture is to be turned: one number of its EXIF or XMP, whatever else of them is damaged.

Sources: EXIF 2.32, 4.6.4 A (orientation); XMP specification part 2, 2.2 (`tiff:Orientation`).
"""

from __future__ import annotations

import re
import struct

from PIL import ExifTags, Image

ORIENTATION = ExifTags.Base.Orientation
EXIF_PREFIX = b"Exif\0\0"
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""EXIF's types that a whole number may have, as `struct` names them."""
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])")

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def of_exif(data: bytes) -> int:
    """Orientation that EXIF data tell, with or without their prefix; 0 if they don't."""
    while data.startswith(EXIF_PREFIX):
        data = data[len(EXIF_PREFIX) :]
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return 0
    (start,) = struct.unpack_from(order + "I", data, 4)
    # Not as many entries as the directory says it has, but as many as are there.
    entries = data[start + 2 :]
    for tag, kind, _, value in struct.iter_unpack(order + "HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == ORIENTATION and kind in INTEGERS:
            (number,) = struct.unpack_from(order + INTEGERS[kind], value)
            return valid(number)
    return 0


def of_xmp(data: bytes) -> int:
    """Orientation that an XMP packet tells; 0 if it doesn't."""
    match = XMP_ORIENTATION.search(data)
    return int(match[1]) if match else 0


def valid(number: object) -> int:
    """The number if it is one of the eight orientations, else 0."""
    return number if isinstance(number, int) and 1 <= number <= 8 else 0


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image
