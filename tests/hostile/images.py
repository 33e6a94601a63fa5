"""Damaged image files, and files that are small and would cost much: made here, the same for the same seed."""

from __future__ import annotations

import io
import itertools
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from edgeclip.image import extras
from tests.hostile.camera_files import directories, dng, heic
from tests.hostile.webp_tables import webp_of_tables

TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""EXIF with orientation 6."""
ACCEPTED = {
    "JPEG": [{}, {"progressive": True}, {"subsampling": 0}, {"exif": TURNED}],
    "MPO": [{}],
    "PNG": [{}, {"exif": TURNED, "icc_profile": b"none", "compress_level": 1}],
    "GIF": [{}, {"interlace": False}],
    "BMP": [{}],
    "PPM": [{}],
    "TIFF": [{}, *({"compression": name} for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"))],
    "WEBP": [{}, {"lossless": True}, {"exif": TURNED, "icc_profile": b"none"}],
    "AVIF": [{"speed": 10}, {"speed": 10, "exif": TURNED}],
}  # fmt: skip
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr")
TIFF_MODES = {"group4": ("1",), "jpeg": ("L", "RGB", "CMYK")}
READ_ONLY = {
    "CUR": b"\0\0\2\0\1\0\x10\x10", "DCX": b"\xb1\x68\xde\x3a", "FITS": b"SIMPLE  =                    T",
    "FLI": b"\0\0\0\0\x11\xaf", "FTEX": b"FTEX\0\0\0\0", "GBR": b"\0\0\0\x20\0\0\0\2", "IPTC": b"\x1c\3\x0a",
    "MCIDAS": b"\0\0\0\0\0\0\0\4", "MPEG": b"\0\0\1\xb3\xff\xff\xff", "PIXAR": b"\x80\xe8\0\0", "PSD": b"8BPS\0\1",
    "SUN": b"\x59\xa6\x6a\x95", "XPM": b"/* XPM */", "XVTHUMB": b"P7 332", "WMF": b"\xd7\xcd\xc6\x9a\0\0",
    "EMF": b"\1\0\0\0" + b"\0" * 36 + b" EMF", "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "EPS with preview": b"\xc5\xd0\xd3\xc6\x1e\0\0\0\x40\0\0\0", "PDF": b"%PDF-1.4\n", "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "GRIB": b"GRIB\0\0\0\1", "HDF5": b"\x89HDF\r\n\x1a\n", "BUFR": b"BUFR", "ICNS": b"icns\0\0\1\0ic10\0\0\1\0",
}  # fmt: skip


def picture(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC)
    return Image.new("I;16", image.size, 4000) if mode == "I;16" else image.convert(mode)


def valid_files() -> Iterator[tuple[str, str, bytes]]:
    """(name, format, file) in all formats that Pillow writes, in all modes and with all options that it agrees to."""
    Image.init()
    for format_ in sorted(set(Image.SAVE) & set(Image.OPEN) | {"MPO"}):
        for mode in MODES:
            for options in ACCEPTED.get(format_, [{}]):
                if mode not in TIFF_MODES.get(str(options.get("compression")), MODES):
                    continue  # libtiff prints, and old ones crash
                buffer = io.BytesIO()
                try:
                    picture(mode).save(buffer, format_, **options)
                except (OSError, ValueError, KeyError, SystemError, RuntimeError, TypeError, AttributeError):
                    continue
                yield f"{format_} {mode} {options}", format_, buffer.getvalue()


def camera_files() -> Iterator[tuple[str, bytes]]:
    """(name, file) of the formats that extras read, where these are there."""
    image = picture("RGB")
    if not extras.is_missing("HEIF"):
        yield "HEIF", heic(image)
        yield "HEIF turned", heic(image, turn=6)
        yield "HEIF in tiles", heic(image.resize((192, 128)), tile_size=64)
        yield "HEIF transparent", heic(picture("RGBA"))
        yield "HEIF without loss", heic(picture("L"), quality=-1, chroma=444)
    if not extras.is_missing("RAW"):
        jpeg = saved(image, "JPEG", exif=TURNED)
        yield "RAW", dng(jpeg, image.size)
        yield "RAW turned", dng(saved(image, "JPEG"), image.size, turn=8)


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def flip(data: bytes, draw: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(draw.choice((1, 2, 8, 32))):
        result[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(result)


def blank(data: bytes, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(data)), draw.choice((1, 4, 16, 200))
    return data[:start] + draw.choice((b"\0", b"\xff")) * len(data[start : start + length]) + data[start + length :]


def shuffle(data: bytes, draw: random.Random) -> bytes:
    a, b, c = sorted(draw.randrange(len(data)) for _ in range(3))
    return draw.choice(
        (data[:a] + data[b:c] + data[a:b] + data[c:], data[:c] + data[a:c] + data[a:], data[:a] + data[b:])
    )


def enlarge(data: bytes, draw: random.Random) -> bytes:
    """Write a huge number into the header, or into any other place."""
    number = draw.choice((0xFFFF, 0x7FFF, 0xFFFFFFFF, 0x7FFFFFFF, 20000, 70000, 0))
    value = struct.pack(draw.choice("<>") + ("I" if number > 0xFFFF or draw.random() < 0.5 else "H"), number)
    at = draw.randrange(min(len(data), draw.choice((32, 64, 4096))))
    return data[:at] + value + data[at + len(value) :]


def shorten(data: bytes, draw: random.Random) -> bytes:
    """Lie about the size of a segment, chunk or box: change one of the numbers that look like one."""
    likely = [at for at in range(len(data) - 4) if 0 < int.from_bytes(data[at : at + 4], "big") < len(data)]
    at = draw.choice(likely or [0])
    return data[:at] + struct.pack(">I", draw.choice((0, 1, 7, len(data), 2**31, 2**32 - 1))) + data[at + 4 :]


def repeat(data: bytes, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(data)), draw.choice((2, 12, 100, 1000))
    return data[:start] + data[start : start + length] * draw.choice((2, 10, 200)) + data[start + length :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncate, flip, blank, shuffle, enlarge, shorten, repeat,
)  # fmt: skip


@cache
def originals() -> list[tuple[str, bytes]]:
    """What is mutated: files of all formats that are accepted, and of some that are not."""
    valid = [(name, format_, data) for name, format_, data in valid_files()]
    others = random.Random(0).sample([(name, data) for name, format_, data in valid if format_ not in ACCEPTED], 10)
    return [(name, data) for name, format_, data in valid if format_ in ACCEPTED] + list(camera_files()) + others


def mutated_images(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(name, file) of damaged pictures; each mutation of each original comes as often as any other."""
    draw = random.Random(seed)
    pairs = itertools.cycle(itertools.product(originals(), MUTATIONS))
    for number, ((name, data), mutate) in enumerate(itertools.islice(pairs, count)):
        yield f"{name} {mutate.__name__} {number}", mutate(data, draw)


def other_files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Files that begin as those of formats that Pillow reads and that are not accepted."""
    draw = random.Random(seed)
    for name, magic in READ_ONLY.items():
        yield name, magic + draw.randbytes(draw.choice((0, 40, 4000)))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_of(
    width: int, height: int, *, colour: int, depth: int = 8, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """A well-formed black PNG; colour type 0 grey, 2 RGB, 6 RGBA."""
    row = bytes(1 + -(-width * depth * {0: 1, 2: 3, 6: 4}[colour] // 8))
    packer, many = zlib.compressobj(1), max(2**20 // len(row), 1)
    rows = b"".join([packer.compress(row * min(many, height - top)) for top in range(0, height, many)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return png((b"IHDR", header), *extra, (b"IDAT", rows), (b"IEND", b""))


def tiff(*entries: tuple[int, int, int, int], data: bytes = b"", again: bool = False) -> bytes:
    """A little-endian TIFF of (tag, type, count, value) entries, with data behind its directory at `tiff_data_at`."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", 8 if again else 0) + data


def tiff_of(
    width: int, height: int, bits: int, *extra: tuple[int, int, int, int], data: bytes, strip: int | None = None
) -> bytes:
    """A deflated RGB TIFF of one strip or tile."""
    at = 8 + 2 + 12 * (9 + len(extra)) + 4
    place = [(324, 4, 1, at), (325, 4, 1, len(data))] if extra else [(273, 4, 1, at), (279, 4, 1, len(data))]
    fixed = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3)]
    return tiff(*fixed, (278, 4, 1, strip or height), *place, *extra, data=data)


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def bombs() -> Iterator[tuple[str, bytes]]:
    """Files that are small and would take much memory or time, and files at the limits."""
    grey, zeros = Image.new("L", (9, 9)), zlib.compress(bytes(60_000_000), 9)
    yield "PNG 60000x60000", png((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", b""))
    yield "PNG bilevel 30000x30000", png_of(30_000, 30_000, colour=0, depth=1)
    yield "PNG RGBA at the limit", png_of(6980, 6980, colour=6)
    yield "PNG 16 bits at the limit", png_of(6980, 6980, colour=0, depth=16)
    yield "PNG 1 x 45,000,000", png_of(1, 45_000_000, colour=0)
    yield "PNG 1 x 10,000,000 at the limit", png_of(1, 10_000_000, colour=0)
    yield "PNG of 16 bits, 50,000,000 x 1", png_of(50_000_000, 1, colour=6, depth=16)
    for kind, prefix in ((b"iCCP", b"a\0\0"), (b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        yield f"PNG {kind!r} of 60 MB", png_of(9, 9, colour=2, extra=((kind, prefix + zeros),))
        yield f"PNG {kind!r} of 60 MB, 40 times", png_of(9, 9, colour=2, extra=((kind, prefix + zeros),) * 40)
    for kind, prefix in ((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"), (b"zTXt", b"Raw profile type exif\0\0")):
        inflating = (kind, prefix + zlib.compress(b"\n" * 4 + b"0" * 3_000_000, 9))
        yield f"PNG of 50,000 {kind!r} that may tell the turn", png_of(9, 9, colour=2, extra=(inflating,) * 50_000)
    yield "PNG of a million chunks", png_of(9, 9, colour=2)[:33] + png((b"prVt", b""))[8:] * 1_000_000
    yield (
        "PNG animated",
        saved(grey, "PNG", save_all=True, append_images=[Image.new("L", (9, 9), i) for i in range(200)]),
    )
    yield "JPEG of a million segments", saved(grey, "JPEG")[:2] + b"\xff\xe5\0\2" * 1_000_000 + saved(grey, "JPEG")[2:]
    large = saved(Image.new("L", (8000, 8000)), "JPEG", progressive=True)
    last = large.rfind(b"\xff\xda")
    yield "JPEG of 1,000 scans", large[:-2] + large[last:-2] * 1000 + large[-2:]
    for name, fill in (("FF 01", b"\xff\x01"), ("FF FF", b"\xff" * 9), ("FF D0", b"\xff\xd0"), ("junk", b"junk")):
        yield f"JPEG of 1,000 scans behind {name}", large[:-2] + (fill + large[last:-2]) * 1000 + large[-2:]
    yield "JPEG of 1,000 arithmetic scans", (large[:-2] + large[last:-2] * 1000).replace(b"\xff\xc2", b"\xff\xca", 1)
    first = large.find(b"\xff\xda")
    yield "JPEG progressive in one scan", resized(large[: first + 200] + large[-2:], 8000, 23_000)
    yield "JPEG progressive at the limit", resized(large, 8000, 9_900)
    yield (
        "JPEG sequential, a component a scan",
        resized(saved(grey.convert("RGB"), "JPEG"), 9, 20_000)[:-2].replace(
            b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11", b"\xff\xda\0\x08\1\1\0", 1
        ),
    )
    yield "JPEG lossless", saved(grey, "JPEG").replace(b"\xff\xc0", b"\xff\xc3", 1)
    yield "JPEG of 200 megapixels", resized(saved(grey, "JPEG"), 9, 14_000)
    yield "JPEG 60000x60000", saved(grey, "JPEG").replace(b"\x08\0\x09\0\x09", b"\x08\xea\x60\xea\x60", 1)
    directory = tiff(*((1000 + i, 7, 64_000, 10) for i in range(5000)), data=bytes(4000))
    yield "JPEG with EXIF tags that share their data", saved(grey, "JPEG", exif=b"Exif\0\0" + directory)
    frame = saved(Image.new("P", (9, 9)), "GIF")
    header = 13 + 3 * 2 ** ((frame[10] & 7) + 1)
    yield "GIF of 20,000 frames", frame[:header] + frame[header:-1] * 20_000 + b";"
    yield "GIF of 200,000 comments", frame[:header] + b"\x21\xfe\x01a\0" * 200_000 + frame[header:]
    yield "GIF 65535x65535", frame[:6] + b"\xff" * 4 + frame[10:]
    yield (
        "GIF of a frame larger than its screen",
        frame[:header] + frame[header:].replace(b"\x09\0\x09\0", b"\xff" * 4, 1),
    )
    moving = saved(grey.convert("RGB"), "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")])
    start = moving.find(b"ANMF")
    moving += moving[start : start + 8 + int.from_bytes(moving[start + 4 : start + 8], "little")] * 3000
    yield "WEBP of 3,000 frames", moving[:4] + struct.pack("<I", len(moving) - 8) + moving[8:]
    yield "AVIF of a frame larger than it says", restated(saved(Image.new("L", (7000, 7000)), "AVIF", speed=10), 16)
    yield "AVIF 16,000 x 16,000", restated(saved(grey, "AVIF", speed=10), 16_000)
    yield "AVIF at the limit", saved(Image.new("RGB", (6000, 5000)), "AVIF", speed=10)
    yield "WEBP 16384x16384", moving[:24] + b"\xff\x3f\0" * 2 + moving[30:]
    lossy = saved(grey.convert("RGB"), "WEBP")[20:]
    chunk = b"VP8 " + struct.pack("<I", 190_000_000) + lossy + bytes(190_000_000 - len(lossy))
    yield "WEBP of 190 MB for 81 pixels", b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk
    yield "JPEG of 90 MB of stuffed bytes", saved(grey, "JPEG")[:2] + b"\xff\0" * 45_000_000 + saved(grey, "JPEG")[2:]
    yield "WEBP of 65,536 tables of codes", webp_of_tables()
    yield "WEBP at the limit", saved(Image.new("RGBA", (4200, 4200)), "WEBP", lossless=True, quality=0, method=0)
    for compression in ("jpeg", "lzma", "tiff_lzw", "packbits"):
        yield f"TIFF of {compression}", saved(Image.new("RGB", (5000, 4000)), "TIFF", compression=compression)
    yield "TIFF of a giant tile", tiff_of(16, 16, 8, (322, 4, 1, 12_000), (323, 4, 1, 12_000), data=zeros)
    yield "TIFF of a giant strip", tiff_of(16, 16, 8, data=zeros, strip=2**31)
    yield "TIFF 16 bits at the limit", tiff_of(5400, 5400, 16, data=zlib.compress(bytes(5400 * 5400 * 6), 1))
    strips = [
        (256, 3, 1, 16),
        (257, 3, 1, 16),
        (258, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 10**6, 122),
        (279, 4, 10**6, 122),
    ]
    yield "TIFF of a million strips", tiff(*strips, data=bytes(4_000_000))
    yield "TIFF whose next directory is itself", tiff((256, 3, 1, 16), (257, 3, 1, 16), again=True)
    yield "BigTIFF", b"II+\0\x08\0\0\0\x10" + bytes(200)
    yield from camera_bombs()
    yield "BMP 2^31 wide", saved(grey, "BMP")[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + saved(grey, "BMP")[26:]
    yield (
        "ICO around a giant PNG",
        struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 10**5, 22) + png_of(12_000, 12_000, colour=0, depth=1),
    )
    yield "BMP of run lengths, a row of 40,000,000", run_length_bmp(40_000_000, 1, b"\0\2\xff\xff" * 100)
    yield "BMP 1 x 40,000,000 bits", bmp_of(1, 40_000_000, bits=1)
    yield "PPM of a long comment", b"P6 #" + b"a" * 5_000_000 + b"\n1 1 255 abc"
    yield "PPM bits, 1 x 40,000,000", b"P4 1 40000000 " + bytes(40_000_000)
    yield "PPM 10^9 wide", b"P6 1000000000 1000000000 255\n" + bytes(100)
    yield "PPM of endless digits", b"P6 " + b"9" * 1_000_000
    yield "nothing", b""


def camera_bombs() -> Iterator[tuple[str, bytes]]:
    """Those of the formats that extras read."""
    if not extras.is_missing("HEIF"):
        large, small = heic(Image.new("RGB", (6900, 6900)), quality=10), heic(picture("RGB"))
        yield "HEIF of a frame larger than it says", restated(large, 16)
        yield "HEIF 16,000 x 16,000", restated(small, 16_000)
        yield "HEIF at the limit", large
        tiles = heic(Image.new("L", (1920, 1920)), quality=10, tile_size=64)
        yield "HEIF of 900 tiles", tiles
        yield "HEIF of tiles that are far larger than their grid", restated(tiles, 9000)
        yield "HEIF of 50,000 free boxes", small + b"\0\0\0\x08free" * 50_000
    if not extras.is_missing("RAW"):
        jpeg = saved(Image.new("L", (9, 9)), "JPEG")
        yield "RAW around a JPEG of 200 megapixels", dng(resized(jpeg, 9, 14_000), (14_000, 14_000))
        yield "RAW around no JPEG", dng(b"\xff\xd8\xff" + bytes(2000), (64, 48))
        yield (
            "RAW of a sensor of 4 gigapixels",
            dng(jpeg, (9, 9))
            .replace(struct.pack("<HHII", 256, 4, 1, 32), struct.pack("<HHII", 256, 4, 1, 65_000))
            .replace(struct.pack("<HHII", 257, 4, 1, 32), struct.pack("<HHII", 257, 4, 1, 65_000)),
        )
        strip = [(262, 3, 2), (273, 4, bytes(1000)), (277, 3, 3), (279, 4, 2**31 - 1), (50706, 1, 1, 4, 0, 0)]
        sides = [(256, 4, 20_000), (257, 4, 20_000), (258, 3, 8, 8, 8), (259, 3, 1)]
        yield "RAW around 20,000 x 20,000 pixels", directories(first=[(254, 4, 1), *sides, *strip])


def slow_bombs() -> Iterator[tuple[str, bytes]]:
    """Files that would keep a decoder busy for minutes; each takes all the time that it is given."""
    yield "PPM in digits, 100 MB", b"P3 4000 4000 255\n" + b"1 " * 48_000_000 + b"\n" * 4_000_000
    yield "PPM of odd levels, 75 MB", b"P6 5000 5000 254\n" + bytes(75_000_000)
    yield "BMP of run lengths, 98 MB", run_length_bmp(6900, 6900, b"\1\1" * 49_000_000)
    yield "BMP of empty runs, 190 MB", run_length_bmp(6900, 6900, b"\0\0" * 95_000_000)


def resized(jpeg: bytes, old: int, new: int) -> bytes:
    """A JPEG whose header tells another size, in pixels a side."""
    return jpeg.replace(b"\x08" + struct.pack(">HH", old, old), b"\x08" + struct.pack(">HH", new, new), 1)


def restated(avif: bytes, side: int) -> bytes:
    """An AVIF whose `ispe` tells another size."""
    at = avif.find(b"ispe") + 8
    return avif[:at] + struct.pack(">II", side, side) + avif[at + 8 :]


def bmp_of(width: int, height: int, *, bits: int) -> bytes:
    rows = bytes((width * bits + 31) // 32 * 4 * height)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(rows), 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 62 + len(rows), 0, 0, 62) + header + b"\0\0\0\0\xff\xff\xff\0" + rows


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    palette = b"".join(bytes((i, i, 255 - i, 0)) for i in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + palette + runs


def special_paths(folder: Path) -> Iterator[Path]:
    """Paths that are no image files."""
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "none")
    (folder / "loop").symlink_to(folder / "loop")
    with (folder / "sparse.bmp").open("wb") as file:
        file.truncate(10**10)
    yield from (
        folder / name for name in ("pipe", "dangling", "loop", "sparse.bmp", "none", "a" * 5000, "nul\0byte", "")
    )
    yield from map(Path, ("/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "/proc/self/environ"))
