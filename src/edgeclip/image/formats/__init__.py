"""The formats that are read, each to what its decoder needs of it and what that will cost.

Pillow reads some forty. Only those that hold pictures in practice are accepted: EPS starts Ghostscript, WMF asks
Windows to draw, BUFR, GRIB and HDF5 call whatever handler is registered, ICO and ICNS wrap other files whose size they
do not tell, JPEG 2000 takes 25 bytes and half a microsecond a pixel, and the rest is hardly ever a photograph. Whoever
needs one of them opens it with Pillow and passes the picture. HEIF and RAW need a package more each (`extras`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

from PIL import UnidentifiedImageError

from edgeclip.image.formats import camera_raw, gif, heif, jpeg, png, raw, tiff, webp
from edgeclip.image.formats.bare import Bare

READERS: dict[str, tuple[re.Pattern[bytes], Callable[[BinaryIO], Bare]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), jpeg.read),  # MPO too
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), png.read),
    "GIF": (re.compile(rb"GIF8[79]a"), gif.read),
    "BMP": (re.compile(rb"BM"), raw.read_bmp),
    "PPM": (re.compile(rb"P[0-6fy]"), raw.read_ppm),
    "TIFF": (re.compile(rb"II|MM"), tiff.read),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), webp.read),
    "AVIF": (re.compile(rb".{4}ftyp(.{4})*avi[fs]", re.DOTALL), heif.read_avif),
    "HEIF": (re.compile(rb".{4}ftyp(.{4})*(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), heif.read_heif),
}
RAW = "RAW"
"""A camera's file, of which another file in it is read."""
FORMATS = (*READERS, RAW)
APART = ("TIFF", "AVIF", "HEIF", RAW)
"""Formats of which no file tells what decoding it will cost."""


def kind_of(file: BinaryIO) -> str:
    """Which of `FORMATS` a file begins as.

    Raises:
        UnidentifiedImageError: none.
    """
    start = file.read(64)
    kind = next((kind for kind, (pattern, _) in READERS.items() if pattern.match(start)), None)
    if camera_raw.OWN_MAGIC.match(start) or (kind == "TIFF" and camera_raw.is_raw_tiff(file)):
        kind = RAW
    file.seek(0)
    if kind is None:
        raise UnidentifiedImageError
    return kind


def read(kind: str, file: BinaryIO) -> Bare:
    """What of a file decides its pixels.

    Raises:
        OSError: it is damaged, or in more pieces than a picture has.
    """
    return READERS[kind][1](file)
