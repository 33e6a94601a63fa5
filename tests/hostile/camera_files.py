"""The smallest files of what phones and cameras write that the extras `heic` and `raw` read, made here."""

from __future__ import annotations

import io
import struct
from datetime import datetime

from PIL import ExifTags, Image

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
FORMATS = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "I", SRATIONAL: "i"}
SIDE = 32
NOON = datetime(2021, 7, 31, 12, 0, 0)


def heic(image: Image.Image, *, turn: int = 1, taken: datetime = NOON, **options: object) -> bytes:
    """A HEIC file, in HEVC, turned by `irot` and `imir`; needs the extra `heic`."""
    import pillow_heif

    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a maker"
    exif[ExifTags.Base.Orientation] = turn
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken.strftime("%Y:%m:%d %H:%M:%S")
    made = pillow_heif.from_pillow(image)
    made.info["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    made.save(buffer, **options)
    return buffer.getvalue()


def dng(preview: bytes, size: tuple[int, int], *, turn: int = 1, taken: datetime = NOON) -> bytes:
    """A DNG (1.4) of 32x32 black dots of a sensor, with a JPEG preview (width, height) in its first directory."""
    sensor, name = bytes(2 * SIDE * SIDE), b"edgeclip test\0"
    first = [
        (254, LONG, 1), (256, LONG, size[0]), (257, LONG, size[1]), (258, SHORT, 8, 8, 8), (259, SHORT, 7),
        (262, SHORT, 6), (271, name), (272, name), (273, LONG, preview), (274, SHORT, turn), (277, SHORT, 3),
        (278, LONG, size[1]), (279, LONG, len(preview)), (330, "sensor"), (34665, "exif"),
        (50706, BYTE, 1, 4, 0, 0), (50707, BYTE, 1, 1, 0, 0), (50708, name),
        (50721, SRATIONAL, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1),
        (50728, RATIONAL, 1, 1, 1, 1, 1, 1), (50778, SHORT, 21),
    ]  # fmt: skip
    of_sensor = [
        (254, LONG, 0), (256, LONG, SIDE), (257, LONG, SIDE), (258, SHORT, 16), (259, SHORT, 1), (262, SHORT, 32803),
        (273, LONG, sensor), (277, SHORT, 1), (278, LONG, SIDE), (279, LONG, len(sensor)),
        (33421, SHORT, 2, 2), (33422, BYTE, 0, 1, 1, 2), (50714, SHORT, 0), (50717, LONG, 65535),
    ]  # fmt: skip
    exif = [(36867, taken.strftime("%Y:%m:%d %H:%M:%S").encode() + b"\0")]
    return directories(first=first, sensor=of_sensor, exif=exif)


def directories(**given: list[tuple]) -> bytes:
    """A little-endian TIFF of (tag, text), (tag, "directory"), (tag, LONG, strip) and (tag, type, *numbers)."""
    starts, at = {}, 8
    for name, entries in given.items():
        starts[name] = at
        at += 2 + 12 * len(entries) + 4
    made, data = b"II*\0\x08\0\0\0", b""
    for entries in given.values():
        made += struct.pack("<H", len(entries))
        for tag, *what in entries:
            value = what[-1]
            if isinstance(value, str):
                kind, count, body = LONG, 1, struct.pack("<I", starts[value])
            elif isinstance(value, bytes) and len(what) == 2:
                kind, count, body = LONG, 1, struct.pack("<I", at + len(data))
                data += value + b"\0" * (len(value) % 2)
            elif isinstance(value, bytes):
                kind, count, body = ASCII, len(value), value
            else:
                kind, *numbers = what
                body = struct.pack(f"<{len(numbers)}{FORMATS[kind]}", *numbers)
                count = len(numbers) // (2 if kind in (RATIONAL, SRATIONAL) else 1)
            if len(body) > 4:
                body, data = struct.pack("<I", at + len(data)), data + body + b"\0" * (len(body) % 2)
            made += struct.pack("<HHI", tag, kind, count) + body.ljust(4, b"\0")
        made += bytes(4)
    return made + data
