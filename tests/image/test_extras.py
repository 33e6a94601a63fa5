"""What phones and cameras write: HEIC by the extra `heic`, and the picture in a raw file by the extra `raw`."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.bulk.listing import image_suffixes, in_words
from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError, MissingExtraError
from edgeclip.image import apart, crop_uint8, extras, formats, open_rgb, orientation
from edgeclip.search.taken import taken_of
from tests.hostile.camera_files import NOON, directories, dng, heic
from tests.hostile.images import saved
from tests.hostile.meter import measured

SCENE = Image.new("RGB", (64, 48), "blue")
SCENE.paste("red", (0, 0, 32, 48))
SCENE.paste("white", (0, 0, 64, 8))


@pytest.fixture
def with_heic() -> None:
    pytest.importorskip("pillow_heif")


@pytest.fixture
def with_raw() -> None:
    pytest.importorskip("rawpy")


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    image_suffixes.cache_clear()
    yield
    image_suffixes.cache_clear()


def close(found: Image.Image, expected: Image.Image) -> bool:
    difference = np.abs(np.asarray(found, np.int16) - np.asarray(expected, np.int16))
    return found.size == expected.size and float(difference.mean()) < 3


@pytest.mark.usefixtures("with_heic")
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_heic_is_turned_by_its_own_boxes(turn: int):
    assert close(open_rgb(heic(SCENE, turn=turn)), orientation.turned(SCENE, turn))


@pytest.mark.usefixtures("with_heic")
def test_a_heic_has_the_pixels_that_its_decoder_gives():
    import pillow_heif

    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for options in ({}, {"tile_size": 128}, {"quality": -1, "chroma": 444}):
        data = heic(Image.fromarray(noise), **options)
        expected = pillow_heif.read_heif(io.BytesIO(data)).to_pillow()
        np.testing.assert_array_equal(np.asarray(open_rgb(data)), np.asarray(expected))


@pytest.mark.usefixtures("with_heic")
def test_what_a_heic_has_beside_its_picture_does_not_count():
    data = heic(SCENE, turn=6)
    at = data.rfind(b"II*\0" if b"II*\0" in data else b"MM\0*")
    assert close(open_rgb(data[:at] + b"\xff" * 12 + data[at + 12 :]), orientation.turned(SCENE, 6))
    transparent = Image.new("RGBA", (64, 48), (255, 0, 0, 0))
    assert close(open_rgb(heic(transparent)), Image.new("RGB", (64, 48), "white"))


@pytest.mark.usefixtures("with_heic")
def test_a_large_heic_is_scaled_where_it_is_decoded():
    """Measured: within 0.15 grey levels of the whole, for a picture of 12 megapixels."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = heic(Image.fromarray(noise).resize((1601, 1203), Image.Resampling.BICUBIC), turn=8)
    config, sent = PreprocessConfig.clip(32), []
    image_new = Image.new

    def counted(mode: str, size: tuple[int, int], *rest: object) -> Image.Image:
        sent.append(size)
        return image_new(mode, size, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart.Image, "new", counted)
        scaled = crop_uint8(data, config)
    assert (151, 201) in sent  # an eighth, rounded up
    whole = crop_uint8(open_rgb(data), config)
    assert np.abs(scaled.astype(int) - whole).mean() < 1


@pytest.mark.usefixtures("with_heic")
def test_a_heic_that_takes_too_much_stays_within_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart, "MAX_BYTES", 40_000_000)
    apart.close()
    large = heic(Image.new("RGB", (3000, 3000)), quality=10)
    assert close(open_rgb(heic(SCENE)), SCENE)  # started

    def attempt() -> None:
        with pytest.raises(ImageError):
            open_rgb(large)

    try:
        assert measured(attempt).peak < 40_000_000
        assert close(open_rgb(heic(SCENE)), SCENE)
    finally:
        apart.close()


@pytest.mark.usefixtures("with_raw")
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_raw_file_is_the_picture_that_the_camera_made_of_it(turn: int):
    plain = saved(SCENE, "JPEG", quality=95)
    assert close(open_rgb(dng(plain, SCENE.size, turn=turn)), orientation.turned(SCENE, turn))
    exif = Image.Exif()
    exif[0x0112] = turn  # a preview that tells its turn itself
    says_so = saved(SCENE, "JPEG", quality=95, exif=exif)
    assert close(open_rgb(dng(says_so, SCENE.size, turn=turn)), orientation.turned(SCENE, turn))


@pytest.mark.usefixtures("with_raw")
def test_a_raw_file_without_a_picture_in_it():
    with pytest.raises(ImageError, match="cannot be decoded"):
        open_rgb(dng(b"\xff\xd8\xff" + bytes(500), SCENE.size))
    assert open_rgb(saved(SCENE, "TIFF")).size == SCENE.size  # by the same process


def test_a_tiff_is_a_raw_file_by_what_its_directories_hold():
    sensor, rgb = [(262, 3, 32803)], [(262, 3, 2)]
    lead = [(330, "inner")]
    kinds = {
        "RAW": [
            {"first": sensor},
            {"first": [(262, 3, 34892)]},
            {"first": [(50706, 1, 1, 4, 0, 0)]},
            {"first": [*rgb, *lead], "inner": sensor},
        ],
        "TIFF": [{"first": rgb}, {"first": [*rgb, *lead], "inner": rgb}, {"first": rgb, "inner": sensor}],
    }
    for kind, files in kinds.items():
        assert [formats.kind_of(io.BytesIO(directories(**given))) for given in files] == [kind] * len(files)
    for start in (b"II*\0\x10\0\0\0CR\2\0", b"FUJIFILMCCD-RAW ", b"\0\0\0\x18ftypcrx ", b"IIRO\x08\0\0\0", b"IIU\0"):
        assert formats.kind_of(io.BytesIO(start + bytes(50))) == "RAW"


def test_both_have_the_date_that_their_exif_tells():
    jpeg = saved(SCENE, "JPEG")
    assert taken_of(io.BytesIO(dng(jpeg, SCENE.size))) == NOON.timestamp()
    canon = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"\0\0\0\x50CMT2" + dated()
    assert taken_of(io.BytesIO(canon)) == NOON.timestamp()
    for magic in (b"IIU\0", b"IIRO"):
        assert taken_of(io.BytesIO(magic + dng(jpeg, SCENE.size)[4:])) == NOON.timestamp()


@pytest.mark.usefixtures("with_heic")
def test_the_date_of_a_heic_is_where_its_boxes_say():
    import pillow_heif

    data = heic(SCENE)
    assert taken_of(io.BytesIO(data)) == NOON.timestamp()
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    large = heic(Image.fromarray(noise), quality=-1, chroma=444)
    assert taken_of(io.BytesIO(large + b"\0\x08\0\0free" + bytes(1 << 19))) == NOON.timestamp()
    plain = io.BytesIO()
    pillow_heif.from_pillow(SCENE).save(plain)
    assert taken_of(plain) is None
    for cut in range(0, len(data), 7):
        taken_of(io.BytesIO(data[:cut]))


def dated() -> bytes:
    return directories(first=[(36867, NOON.strftime("%Y:%m:%d %H:%M:%S").encode() + b"\0")])


@pytest.mark.usefixtures("without_extras")
def test_without_the_extra_one_line_names_it(tmp_path: Path):
    heif = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    for data, extra in ((heif, "heic"), (dng(saved(SCENE, "JPEG"), SCENE.size), "raw")):
        with pytest.raises(MissingExtraError, match=rf"without the extra `{extra}`.*pip install 'edgeclip\[{extra}\]'"):
            open_rgb(data)
    assert not {".heic", ".nef"} & image_suffixes()
    told = in_words(Counter({".heic": 3, ".mov": 2, ".nef": 1}))
    assert told == "3 .heic, 2 .mov, 1 .nef; more with pip install 'edgeclip[heic,raw]'"


@pytest.mark.usefixtures("with_heic", "with_raw")
def test_with_the_extras_their_files_are_pictures():
    assert {".heic", ".heif", ".hif", ".nef", ".cr3", ".dng"} <= image_suffixes()
    assert in_words(Counter({".mov": 2, ".heic": 0})) == "2 .mov"
