"""A camera's raw file: the picture that the camera itself has put into it. What the sensor saw is never developed."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from PIL import Image

from edgeclip.image import orientation
from edgeclip.image.formats.tiff import ORDERS

OWN_MAGIC = re.compile(
    rb"II\*\0.{4}CR\x02|II\x1a\0\0\0HEAPCCDR|.{4}ftypcrx |IIU\0|II(?:RO|RS)|MMOR|FUJIFILMCCD-RAW|\0MRM|FOVb", re.DOTALL
)
"""Canon's three, Panasonic's, Olympus's, Fujifilm's, Minolta's and Sigma's. The others begin as any TIFF does."""
DNG_VERSION, PHOTOMETRIC, SUBDIRECTORIES = 50706, 262, 330
SENSOR = (32803, 34892)
"""Pixels of a colour filter array, and linear raw ones (TIFF/EP, DNG)."""
SHORT = 3
MAX_DIRECTORIES, MAX_ENTRIES = 16, 1000
ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)
"""EXIF's, by LibRaw's."""


def is_raw_tiff(file: BinaryIO) -> bool:
    """Whether the first directory of a TIFF, or one that it leads to, is of what a sensor saw."""
    file.seek(0)
    prefix = file.read(8)
    order = ORDERS.get(prefix[:4])
    if order is None or len(prefix) < 8:
        return False
    first = _entries(file, order, struct.unpack_from(order + "I", prefix, 4)[0])
    starts = [
        at for tag, _, count, value in first if tag == SUBDIRECTORIES for at in _numbers(file, order, count, value)
    ]
    inner = [entry for at in starts[:MAX_DIRECTORIES] for entry in _entries(file, order, at)]
    return any(_is_of_sensor(order, *entry) for entry in (*first, *inner))


def _is_of_sensor(order: str, tag: int, kind: int, _: int, value: int) -> bool:
    if tag != PHOTOMETRIC:
        return tag == DNG_VERSION
    return (value >> 16 if kind == SHORT and order == ">" else value) in SENSOR


def _entries(file: BinaryIO, order: str, start: int) -> list[tuple[int, int, int, int]]:
    """(tag, type, count, value or where it is) of a directory, as far as it is there."""
    file.seek(start)
    count = file.read(2)
    data = file.read(12 * min(struct.unpack(order + "H", count)[0], MAX_ENTRIES)) if len(count) == 2 else b""
    return list(struct.iter_unpack(order + "HHII", data[: len(data) // 12 * 12]))


def _numbers(file: BinaryIO, order: str, count: int, value: int) -> list[int]:
    if count == 1:
        return [value]
    file.seek(value)
    data = file.read(4 * min(count, MAX_DIRECTORIES))
    return [number for (number,) in struct.iter_unpack(order + "I", data[: len(data) // 4 * 4])]


def preview(file: BinaryIO) -> bytes | Image.Image:
    """The largest picture that a camera has put beside what its sensor saw; to be called in a process apart.

    Returns:
        A JPEG file, to which LibRaw adds how it is to be turned where it doesn't say so itself; or what was no JPEG,
        upright.

    Raises:
        OSError: there is none, or the file is damaged.
    """
    import rawpy

    try:
        with rawpy.imread(file) as raw:
            found, turn = raw.extract_thumb().data, ORIENTATIONS[raw.sizes.flip & 7]
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError) as error:
        raise OSError("a raw file without a picture of the camera's own in it") from error
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        told = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise OSError(f"a raw file that LibRaw refuses: {told}") from error
    return found if isinstance(found, bytes) else orientation.turned(Image.fromarray(found), turn)
