"""Damaged and hostile image files, and a process that tries them all: `python -m tests.image.hostile_images SEED`.

Prints the name of each file before it is tried, and a JSON summary at the end.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""EXIF with orientation 6."""
ACCEPTED = {
    "JPEG": [{}, {"progressive": True}, {"subsampling": 0}, {"exif": TURNED}],
    "MPO": [{}],
    "PNG": [{}],
    "GIF": [{}, {"interlace": False}],
    "BMP": [{}],
    "PPM": [{}],
    "TIFF": [{}, *({"compression": name} for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"))],
    "WEBP": [{}, {"lossless": True}],
    "AVIF": [{"speed": 10}],
}  # fmt: skip
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr")
READ_ONLY = {
    "CUR": b"\0\0\2\0\1\0\x10\x10", "DCX": b"\xb1\x68\xde\x3a", "FITS": b"SIMPLE  =                    T",
    "FLI": b"\0\0\0\0\x11\xaf", "FTEX": b"FTEX\0\0\0\0", "GBR": b"\0\0\0\x20\0\0\0\2", "IPTC": b"\x1c\3\x0a",
    "MCIDAS": b"\0\0\0\0\0\0\0\4", "MPEG": b"\0\0\1\xb3\xff\xff\xff", "PIXAR": b"\x80\xe8\0\0", "PSD": b"8BPS\0\1",
    "SUN": b"\x59\xa6\x6a\x95", "XPM": b"/* XPM */", "XVTHUMB": b"P7 332", "WMF": b"\xd7\xcd\xc6\x9a\0\0",
    "EMF": b"\1\0\0\0" + b"\0" * 36 + b" EMF", "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "EPS with preview": b"\xc5\xd0\xd3\xc6\x1e\0\0\0\x40\0\0\0", "PDF": b"%PDF-1.4\n", "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "GRIB": b"GRIB\0\0\0\1", "HDF5": b"\x89HDF\r\n\x1a\n", "BUFR": b"BUFR", "ICNS": b"icns\0\0\1\0ic10\0\0\1\0",
}  # fmt: skip
CONFIG_SIZE = 32
FORBIDDEN = ("subprocess", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "socket")
"""Audit events of a program that is started, or of a connection."""


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
                buffer = io.BytesIO()
                try:
                    picture(mode).save(buffer, format_, **options)
                except (OSError, ValueError, KeyError, SystemError, RuntimeError, TypeError, AttributeError):
                    continue
                yield f"{format_} {mode} {options}", format_, buffer.getvalue()


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


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (truncate, flip, blank, shuffle, enlarge)


def mutated_files(seed: int) -> Iterator[tuple[str, bytes]]:
    draw = random.Random(seed)
    for name, format_, data in valid_files():
        yield name, data
        for mutate in MUTATIONS:
            for number in range(5 if format_ in ACCEPTED else 2):
                yield f"{name} {mutate.__name__} {number}", mutate(data, draw)
    for name, magic in READ_ONLY.items():
        for number in range(5):
            yield f"{name} {number}", magic + draw.randbytes(draw.choice((0, 40, 4000)))


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
    packer = zlib.compressobj(1)
    rows = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
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
    yield "PNG RGBA at the limit", png_of(7400, 7400, colour=6)
    yield "PNG 16 bits at the limit", png_of(7400, 7400, colour=0, depth=16)
    for kind, prefix in ((b"iCCP", b"a\0\0"), (b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        yield f"PNG {kind!r} of 60 MB", png_of(9, 9, colour=2, extra=((kind, prefix + zeros),))
        yield f"PNG {kind!r} of 60 MB, 40 times", png_of(9, 9, colour=2, extra=((kind, prefix + zeros),) * 40)
    yield "PNG of a million chunks", png_of(9, 9, colour=2)[:33] + png((b"prVt", b""))[8:] * 1_000_000
    yield (
        "PNG animated",
        saved(grey, "PNG", save_all=True, append_images=[Image.new("L", (9, 9), i) for i in range(200)]),
    )
    yield "JPEG of a million segments", saved(grey, "JPEG")[:2] + b"\xff\xe5\0\2" * 1_000_000 + saved(grey, "JPEG")[2:]
    large = saved(Image.new("L", (8000, 8000)), "JPEG", progressive=True)
    last = large.rfind(b"\xff\xda")
    yield "JPEG of 1,000 scans", large[:-2] + large[last:-2] * 1000 + large[-2:]
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
    yield "WEBP 16384x16384", moving[:24] + b"\xff\x3f\0" * 2 + moving[30:]
    yield "WEBP at the limit", saved(Image.new("RGBA", (4900, 4900)), "WEBP", lossless=True, quality=0, method=0)
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
    yield "BMP 2^31 wide", saved(grey, "BMP")[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + saved(grey, "BMP")[26:]
    yield (
        "ICO around a giant PNG",
        struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 10**5, 22) + png_of(12_000, 12_000, colour=0, depth=1),
    )
    yield "PPM 10^9 wide", b"P6 1000000000 1000000000 255\n" + bytes(100)
    yield "PPM of endless digits", b"P6 " + b"9" * 1_000_000
    yield "nothing", b""


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


def main() -> None:
    from edgeclip.config import PreprocessConfig
    from edgeclip.errors import ImageError
    from edgeclip.evaluate.footprint import peak_rss_mb
    from edgeclip.image import preprocess

    config = PreprocessConfig.clip(CONFIG_SIZE)
    count = {"files": 0, "images": 0, "errors": 0}
    wrong: list[str] = []
    slowest = (0.0, "")

    def attempt(name: str, source: bytes | Path) -> None:
        nonlocal slowest
        start = time.process_time()
        try:
            pixel_values = preprocess(source, config)
        except ImageError as error:
            count["errors"] += 1
            if "\n" in str(error):
                wrong.append(f"{name}: {error}")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            wrong.append(f"{name}: {error!r}")
        else:
            count["images"] += 1
            if pixel_values.shape != (3, CONFIG_SIZE, CONFIG_SIZE) or not np.isfinite(pixel_values).all():
                wrong.append(f"{name}: {pixel_values.shape}")
        slowest = max(slowest, (time.process_time() - start, name))

    def forbid(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(FORBIDDEN):
            wrong.append(f"{event} {arguments}")

    sys.addaudithook(forbid)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        for source in (mutated_files(int(sys.argv[1])), bombs()):
            for name, data in source:
                print(name, flush=True)
                path.write_bytes(data)
                count["files"] += 1
                attempt(name, data)
                attempt(name, path)
        for special in special_paths(Path(folder)):
            print(ascii(special)[:200], flush=True)
            attempt(str(special), special)
    print(json.dumps({**count, "wrong": wrong, "slowest": slowest, "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    main()
