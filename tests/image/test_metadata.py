"""Metadata never costs the picture, and it is turned wherever its turn can be read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError
from edgeclip.image import crop_uint8, open_rgb
from tests.hostile.images import png, saved

RED_LEFT = Image.new("RGB", (48, 32), "blue")
RED_LEFT.paste("red", (0, 0, 24, 32))
TURN = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
"""Orientation 6: to be turned a quarter clockwise, so that what was left is on top."""


def exif(*entries: bytes, count: int | None = None, tail: bytes = b"\0\0\0\0") -> bytes:
    number = len(entries) if count is None else count
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", number) + b"".join(entries) + tail


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack(">HHII", tag, kind, count, value)


MALFORMED = {
    "a value beyond the end": exif(TURN, entry(0x0131, 2, 5000, 0xFFFFFF)),
    "an unknown type": exif(TURN, entry(0x0131, 99, 1, 1)),
    "a text where a fraction belongs": exif(TURN, entry(0x011A, 2, 4, 0x41424344)),
    "a fraction by nothing": exif(entry(0x011A, 5, 1, 38), TURN, tail=bytes(12)),
    "more entries than there are": exif(TURN, count=400, tail=b""),
    "a directory of GPS that is itself": exif(TURN, entry(0x8825, 4, 1, 8)),
    "an orientation as a long": exif(struct.pack(">HHII", 0x0112, 4, 1, 6)),
    "two prefixes": b"Exif\0\0" + exif(TURN),
    "a next directory beyond the end": exif(TURN, tail=b"\xff\xff\xff\xff"),
    "a number of bytes too large": exif(TURN, entry(0x927C, 7, 0xFFFFFFFF, 26)),
}
UNREADABLE = {
    "nothing": b"Exif\0\0",
    "no byte order": b"Exif\0\0XX\0*\0\0\0\x08",
    "a directory beyond the end": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "an orientation of 9": exif(TURN.replace(b"\0\6\0\0", b"\0\x09\0\0")),
    "an orientation as text": exif(struct.pack(">HHI4s", 0x0112, 2, 4, b"6\0\0\0")),
    "noise": b"Exif\0\0" + bytes(range(256)) * 4,
}
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def with_exif(format_: str, data: bytes) -> bytes:
    """A lossless or fine picture with these bytes as EXIF, put there without Pillow's help."""
    if format_ == "PNG":
        plain = saved(RED_LEFT, "PNG")
        return plain[:33] + png((b"eXIf", data.removeprefix(b"Exif\0\0")))[8:] + plain[33:]
    if format_ == "WEBP":
        plain = saved(RED_LEFT, "WEBP", lossless=True)
        return riff(vp8x(0x08) + plain[12:] + chunk(b"EXIF", data))
    plain = saved(RED_LEFT, "JPEG", subsampling=0)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + plain[2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def vp8x(flags: int) -> bytes:
    return chunk(b"VP8X", bytes((flags, 0, 0, 0, 47, 0, 0, 31, 0, 0)))


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def assert_turned(data: bytes) -> None:
    upright = open_rgb(data)
    assert upright.size == (32, 48)
    assert upright.getpixel((16, 4))[0] > 200
    assert upright.getpixel((16, 44))[2] > 200
    crop_uint8(data, PreprocessConfig.clip(32))


def assert_as_stored(data: bytes) -> None:
    image = open_rgb(data)
    assert image.size == (48, 32)
    assert image.getpixel((4, 16))[0] > 200


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kind", MALFORMED)
def test_a_turn_is_applied_whatever_else_of_the_exif_is_malformed(format_: str, kind: str):
    assert_turned(with_exif(format_, MALFORMED[kind]))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_exif_that_tells_no_turn_is_ignored(format_: str, kind: str):
    assert_as_stored(with_exif(format_, UNREADABLE[kind]))


@pytest.mark.parametrize("kind", ["a value beyond the end", "a text where a fraction belongs", "two prefixes"])
def test_malformed_exif_of_a_picture_that_someone_else_opened(kind: str):
    assert open_rgb(Image.open(io.BytesIO(with_exif("JPEG", MALFORMED[kind])))).size == (32, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_that_pillow_opened_are_turned_once(orientation: int):
    meta = Image.Exif()
    meta[0x0112] = orientation
    for format_ in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF"):
        data = saved(RED_LEFT, format_, exif=meta)
        theirs, ours = open_rgb(Image.open(io.BytesIO(data))), open_rgb(data)
        assert ours.size == theirs.size == ((32, 48) if orientation >= 5 else (48, 32))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_is_turned_whatever_its_other_tags_say(order: str):
    odd = [(282, 5, 1, 2**31), (283, 2, 9, 1), (305, 2, 10**9, 10), (34665, 4, 1, 2**32 - 1), (270, 99, 1, 1)]
    assert_turned(strip_tiff(order, [(274, 3, 1, 6), *odd]))
    assert_as_stored(strip_tiff(order, odd))


def strip_tiff(order: str, tags: list[tuple[int, int, int, int]]) -> bytes:
    pixels = RED_LEFT.tobytes()
    tags = [
        *tags,
        (256, 3, 1, 48), (257, 3, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, 32), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, count) + struct.pack(order + ("HH" if kind == 3 else "I"), *values)
        for tag, kind, count, value in sorted(tags)
        for values in [(value, 0) if kind == 3 else (value,)]
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return magic + struct.pack(order + "I", 8 + len(pixels)) + pixels + directory


def test_xmp_tells_the_turn_where_exif_does_not():
    plain = saved(RED_LEFT, "JPEG", subsampling=0)
    body = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    assert_turned(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:])
    plain = saved(RED_LEFT, "PNG")
    for text in (b"\0\0\0\0" + XMP, b"\1\0\0\0" + zlib.compress(XMP)):
        assert_turned(plain[:33] + png((b"iTXt", b"XML:com.adobe.xmp\0" + text))[8:] + plain[33:])
    assert_turned(riff(vp8x(4) + saved(RED_LEFT, "WEBP", lossless=True)[12:] + chunk(b"XMP ", XMP)))


def test_exif_after_the_rows_of_a_png_and_in_hexadecimal_text():
    plain = saved(RED_LEFT, "PNG")
    body = exif(TURN)
    assert_turned(plain[:-12] + png((b"eXIf", body[6:]))[8:] + plain[-12:])
    text = b"\nexif\n%8d\n" % len(body) + body.hex().encode() + b"\n"
    for part in ((b"zTXt", b"\0" + zlib.compress(text)), (b"tEXt", text)):
        name = b"Raw profile type exif\0"
        assert_turned(plain[:33] + png((part[0], name + part[1]))[8:] + plain[33:])


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000_000), 9))] * 3,
        [(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(60_000_000), 9))],
        [(b"iCCP", b"a\0\0" + zlib.compress(bytes(60_000_000), 9))],
        [(b"iCCP", b"not deflated")],
        [(b"tEXt", b"a\0" + b"x" * 5_000_000)],
        [(b"tEXt", b"a\0x")] * 5000,
        [(b"tRNS", b"abc")],
        [(b"eXIf", b"")],
        [(b"pHYs", b"a")],
        [(b"gAMA", b"")],
        [(b"acTL", b"")],
    ],
)
def test_no_chunk_beside_the_rows_costs_a_png(chunks: list[tuple[bytes, bytes]]):
    plain = saved(RED_LEFT, "PNG")
    for data in (
        plain[:33] + png(*chunks)[8:] + plain[33:],
        plain[:-12] + png(*chunks)[8:] + plain[-12:],
        plain[:33] + png(*chunks)[8:-4] + b"\0\0\0\0" + plain[33:],  # a wrong checksum
    ):
        np.testing.assert_array_equal(np.asarray(open_rgb(data)), np.asarray(RED_LEFT))


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe2" + b"\0\x20ICC_PROFILE\0\1\7" + bytes(16),
        b"\xff\xe2" + b"\0\x0eMPF\0" + b"MM\0*\xff\xff\xff\xff",
        b"\xff\xed" + b"\0\x1aPhotoshop 3.0\0" + b"8BIM\xff\xff\xff\xff\xff\xff",
        b"\xff\xe0\0\2",
        b"\xff\xee\0\x07Adobe",
        b"\xff\xfe\0\2",
        b"\xff\xfe\0\x05abc" * 2000,
        b"\xff\xff\xff\xff\xff",
        b"\xff\x01",
        b"\xff\xe1\0\2",
    ],
)
def test_no_segment_before_the_coded_data_costs_a_jpeg(segment: bytes):
    plain = saved(RED_LEFT, "JPEG")
    np.testing.assert_array_equal(np.asarray(open_rgb(plain[:2] + segment + plain[2:])), np.asarray(open_rgb(plain)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize(
    "end",
    [
        b"", b"\xff", b"\xff\x02\0\3a\xff\xd9", b"\xff\xf0", b"\xff\xd8", b"junk", bytes(100),
        b"\xff\xd9" + b"\xff\xda" * 500, b"\xff\xd9\xff\xd8\xff\xe0", b"\xff\xc0\0\2", b"\xff\xfe\xff\xff",
    ],
)  # fmt: skip
def test_nothing_after_the_coded_data_costs_a_jpeg(options: dict[str, object], end: bytes):
    plain = saved(RED_LEFT, "JPEG", **options)
    for data in (plain[:-2] + end, plain[:-2] + end + bytes(200_000)):
        np.testing.assert_array_equal(np.asarray(open_rgb(data)), np.asarray(open_rgb(plain)))


@pytest.mark.parametrize("format_", ["PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "MPO"])
def test_trailing_bytes_cost_no_picture(format_: str):
    data = saved(RED_LEFT, format_)
    for tail in (b"\0", b"junk" * 100, data):
        np.testing.assert_array_equal(np.asarray(open_rgb(data + tail)), np.asarray(open_rgb(data)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_blocks": 8},
        {"progressive": True, "subsampling": 0, "restart_marker_rows": 1},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_cut_anywhere_is_whole_or_refused(mode: str, options: dict[str, object]):
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise).resize((80, 60), Image.Resampling.BICUBIC).convert(mode), "JPEG", **options)
    whole, read = open_rgb(data).tobytes(), []
    for length in range(len(data) - 1, 600, -1):
        try:
            pixels = open_rgb(data[:length]).tobytes()
        except ImageError:
            continue
        assert pixels == whole, length
        read.append(length)
    assert {len(data) - 1, len(data) - 2} <= set(read)


def test_a_cut_jpeg_is_refused_when_it_is_scaled_too():
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise).resize((640, 640)), "JPEG", progressive=True)
    config = PreprocessConfig.clip(16)  # an eighth, where the last scan makes no difference
    crop = crop_uint8(data[:-2], config)
    np.testing.assert_array_equal(crop, crop_uint8(data, config))
    with pytest.raises(ImageError, match="cannot be decoded"):
        crop_uint8(data[:-300], config)


def test_comments_before_a_gif():
    plain = saved(RED_LEFT, "GIF")
    start = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    for extension in (
        b"\x21\xfe\5ab\0cd\0" * 300_000,
        b"\x21\xff\x0bXMP DataXMP" + b"\1x" * 500 + b"\0",
        b"\x21\xf9\0",
    ):
        data = plain[:start] + extension + plain[start:]
        np.testing.assert_array_equal(np.asarray(open_rgb(data)), np.asarray(open_rgb(plain)))


def test_an_avif_is_turned_by_its_own_boxes_not_by_broken_exif():
    meta = Image.Exif()
    meta[0x0112] = 6
    meta[0x010E] = "a description"
    data = saved(RED_LEFT, "AVIF", exif=meta, xmp=b"not XML")
    assert_turned(data)
    at = data.rfind(b"MM\0*" if b"MM\0*" in data else b"II*\0")
    assert_turned(data[:at] + b"\xff" * 12 + data[at + 12 :])


def test_large_jpegs_are_read_where_their_scaled_decode_is_small():
    """Pillow's own limit counts the pixels of the file; here are 200 million, of which a 64th is decoded."""
    stripe = Image.new("L", (16_000, 12_500))
    stripe.paste(255, (8000, 0, 16_000, 12_500))
    crop = crop_uint8(saved(stripe, "JPEG", quality=20), PreprocessConfig.clip(224))
    assert crop[:, :100].max() < 5
    assert crop[:, 124:].min() > 250
