"""Dates of EXIF data that Pillow wrote, that were written by hand, and that are damaged."""

from __future__ import annotations

import io
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from edgeclip.search.taken import taken_of


def picture(format_: str, date: str | None, offset: str | None = None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a maker"  # without which Pillow leaves EXIF out of some formats
    if date is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date
    if offset is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.OffsetTimeOriginal] = offset
    data = io.BytesIO()
    Image.new("RGB", (600, 500), "red").save(data, format_, exif=exif)
    return data.getvalue()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_date_is_found_in_every_format_that_has_exif(format_: str):
    taken = taken_of(io.BytesIO(picture(format_, "2021:07:31 18:05:09", "+02:00")))
    assert taken == datetime(2021, 7, 31, 16, 5, 9, tzinfo=UTC).timestamp()


def test_without_a_zone_it_is_local_time():
    taken = taken_of(io.BytesIO(picture("JPEG", "2021:07:31 18:05:09")))
    assert taken == datetime(2021, 7, 31, 18, 5, 9).timestamp()


def test_both_byte_orders_by_hand():
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        text = b"1999:12:31 23:59:58\0"
        main = struct.pack(order + "HHHIII", 1, 0x8769, 4, 1, 26, 0)
        inner = struct.pack(order + "HHHIII", 1, 0x9003, 2, len(text), 44, 0)
        tiff = mark + struct.pack(order + "I", 8) + main + inner + text
        for data in (tiff, b"\xff\xd8\xff\xe1\0\0Exif\0\0" + tiff):
            assert taken_of(io.BytesIO(data)) == datetime(1999, 12, 31, 23, 59, 58).timestamp()


@pytest.mark.parametrize("date", [None, "0000:00:00 00:00:00", "    :  :     :  :  ", "2021:13:01 00:00:00", "2021"])
def test_no_date_is_none(date: str | None):
    assert taken_of(io.BytesIO(picture("JPEG", date))) is None


def test_exif_at_the_end_of_a_large_file():
    data = picture("WEBP", "2021:07:31 18:05:09", "+00:00")
    start = data.index(b"EXIF")
    large = data[:start] + bytes(1 << 19) + data[start:]
    assert taken_of(io.BytesIO(large)) == datetime(2021, 7, 31, 18, 5, 9, tzinfo=UTC).timestamp()


def test_the_date_of_a_picture_that_follows_is_not_this_ones():
    first, second = picture("JPEG", None), picture("JPEG", "2021:07:31 18:05:09")
    assert taken_of(io.BytesIO(first + second)) is None
    assert taken_of(io.BytesIO(second + first)) == datetime(2021, 7, 31, 18, 5, 9).timestamp()


@given(st.integers(0, 300), st.binary(max_size=8), st.integers(0, 400))
def test_damaged_data_are_no_error(at: int, change: bytes, end: int):
    data = picture("JPEG", "2021:07:31 18:05:09")[:400]
    damaged = (data[:at] + change + data[at + len(change) :])[:end]
    assert isinstance(taken_of(io.BytesIO(damaged)), float | None)
