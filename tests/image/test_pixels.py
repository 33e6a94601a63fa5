import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from transformers import CLIPImageProcessorPil

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError
from edgeclip.image import Crop, center_crop, crop_uint8, normalize, open_rgb, preprocess
from edgeclip.image.decode import opened

CLIP_224 = PreprocessConfig.clip(224)
ORACLE = CLIPImageProcessorPil()


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def oracle(image: Image.Image) -> np.ndarray:
    return np.asarray(ORACLE(image, return_tensors="np")["pixel_values"][0])


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (1, 7), (7, 1), (1, 300), (300, 1), (3, 1500), (1500, 3), (224, 224), (225, 223), (500, 375), (640, 100)],
)
def test_bits_equal_transformers_at_odd_sizes(width: int, height: int):
    image = picture(width, height)
    np.testing.assert_array_equal(preprocess(image, CLIP_224), oracle(image))


@pytest.mark.slow
def test_bits_equal_transformers_at_3x5000_and_10_megapixels():
    for size in ((3, 5000), (3872, 2592)):
        image = picture(*size)
        np.testing.assert_array_equal(preprocess(image, CLIP_224), oracle(image))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**16))
@pytest.mark.slow
def test_bits_equal_transformers_at_any_size(width: int, height: int, seed: int):
    image = picture(width, height, seed=seed)
    np.testing.assert_array_equal(preprocess(image, CLIP_224), oracle(image))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_bits_equal_transformers_in_every_mode(mode: str):
    image = picture(300, 200).convert("RGBA") if mode in ("RGBA", "LA") else picture(300, 200)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image = image.convert(mode)
    np.testing.assert_array_equal(preprocess(image, CLIP_224), oracle(image))


def test_palette_with_transparency_is_laid_on_white():
    image = Image.new("P", (10, 10), 0)
    image.putpalette([255, 0, 0] + [0, 0, 255] * 255)
    image.info["transparency"] = 0
    assert (np.asarray(open_rgb(image)) == 255).all()


def test_other_normalisation_and_crop_equal_transformers():
    config = PreprocessConfig(
        shortest_edge=40, crop_size=(32, 24), resample=2, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.5)
    )
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": 40},
        crop_size={"height": 32, "width": 24},
        resample=2,
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.2, 0.3, 0.5],
    )
    image = picture(97, 61)
    expected = np.asarray(theirs(image, return_tensors="np")["pixel_values"][0])
    np.testing.assert_array_equal(preprocess(image, config), expected)


@pytest.mark.parametrize("size", [(5, 9), (40, 3), (33, 32)])
def test_a_crop_larger_than_the_picture_pads_as_transformers_does(size: tuple[int, int]):
    theirs = CLIPImageProcessorPil(do_resize=False, crop_size={"height": 32, "width": 32})
    config = PreprocessConfig(shortest_edge=None, crop_size=(32, 32))
    image = picture(*size)
    expected = np.asarray(theirs(image, return_tensors="np")["pixel_values"][0])
    np.testing.assert_array_equal(preprocess(image, config), expected)


def test_center_crop_takes_the_middle():
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    np.testing.assert_array_equal(center_crop(pixels, (3, 2)), pixels[1:4, 1:3])


def test_squash_ignores_the_aspect_ratio():
    config = PreprocessConfig(shortest_edge=None, resize_to=(16, 16), crop_size=(16, 16))
    image = picture(64, 20)
    np.testing.assert_array_equal(crop_uint8(image, config), np.asarray(image.resize((16, 16), 3)))


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95, subsampling=0)
    upright = open_rgb(buffer.getvalue())
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 3))[2] > 200  # blue, which was on the left, is on top
    assert upright.getpixel((10, 36))[0] > 200


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    grey = np.asarray(open_rgb(buffer.getvalue()))[..., 0]
    np.testing.assert_allclose(grey.reshape(-1), np.arange(256), atol=1)


def test_float_images_between_0_and_1_are_scaled():
    image = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert abs(int(np.asarray(open_rgb(image))[0, 0, 0]) - 128) <= 1


def test_sources_agree(tmp_path):
    image = picture(50, 40)
    image.save(tmp_path / "a.png")
    expected = preprocess(image, CLIP_224)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), np.asarray(image)):
        np.testing.assert_array_equal(preprocess(source, CLIP_224), expected)


@pytest.mark.parametrize("size", [(224, 224), (300, 224), (224, 300)])
def test_a_frame_that_needs_no_resize_has_the_bits_of_its_picture(size: tuple[int, int]):
    image = picture(*size)
    frame = np.array(image)
    crop = crop_uint8(frame, CLIP_224)
    frame[:] = 0  # a camera's buffer is used again
    np.testing.assert_array_equal(crop, crop_uint8(image, CLIP_224))
    np.testing.assert_array_equal(normalize(crop, CLIP_224), oracle(image))
    for mode in ("L", "RGBA"):
        converted = image.convert(mode)
        np.testing.assert_array_equal(preprocess(np.array(converted), CLIP_224), oracle(converted))


def test_batches_are_normalised_like_single_images():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    batch = normalize(pixels, CLIP_224)
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch[1], normalize(pixels[1], CLIP_224))


def encoded(image: Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_images_give_one_typed_error(format_: str):
    data = encoded(picture(64, 64), format_)
    for length in (0, 1, 8, len(data) // 3, len(data) // 2):
        with pytest.raises(ImageError, match="cannot be decoded"):
            open_rgb(data[:length])


def test_a_decompression_bomb_is_refused():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    png = bytearray(encoded(picture(1, 1), "PNG"))
    png[16:29] = header
    with pytest.raises(ImageError):
        open_rgb(bytes(png))


def test_a_picture_that_was_opened_but_is_truncated():
    data = encoded(picture(64, 64), "JPEG")
    with pytest.raises(ImageError, match="a 64x64 picture cannot be decoded"):
        preprocess(Image.open(io.BytesIO(data[: len(data) // 2])), CLIP_224)


def test_missing_files_and_wrong_arrays_are_user_errors(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        open_rgb(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="float64"):
        open_rgb(np.zeros((4, 4, 3)))
    with pytest.raises(ImageError, match=r"shape \(4, 4, 2\)"):
        open_rgb(np.zeros((4, 4, 2), np.uint8))


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise with detail at every scale, its amplitude in proportion to the size, as in photographs."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128.0)
    for octave in range(1, 9):
        shape = (-(-height // 2**octave), -(-width // 2**octave), 3)
        noise = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).resize((width, height), 3)
        total += (np.asarray(noise) - 127.5) * 2**octave / 256
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def full_hd() -> Image.Image:
    return photograph(1921, 1083)


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "JPEG"), quality=90, exif=exif, **options)
    return buffer.getvalue()


def difference(data: bytes, config: PreprocessConfig = CLIP_224) -> float:
    """Mean absolute difference, in grey levels, between the crop with scaled decoding and that of the full decode."""
    scaled = crop_uint8(data, config).astype(int)
    return float(np.abs(scaled - crop_uint8(open_rgb(data), config)).mean())


@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}, {"format": "MPO"}],
)
def test_a_scaled_jpeg_stays_within_a_grey_level(full_hd: Image.Image, options: dict[str, object]):
    assert 0 < difference(jpeg(full_hd, **options)) < 0.8


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_scaled_jpeg_in_other_modes_stays_within_a_grey_level(full_hd: Image.Image, mode: str):
    assert 0 < difference(jpeg(full_hd.convert(mode))) < 0.8


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_scaled_and_turned_jpeg_stays_within_a_grey_level(full_hd: Image.Image, orientation: int):
    """The bound is that of the upright picture: a shift by the surplus of the scaled size would exceed it."""
    upright = difference(jpeg(full_hd))
    assert 0 < difference(jpeg(full_hd, orientation)) < 1.1 * upright


def test_which_scale_is_chosen(full_hd: Image.Image):
    def decoded(image: Image.Image, width: int, height: int, orientation: int = 1) -> tuple[int, int]:
        with opened(jpeg(image, orientation), lambda size: (width, height)) as picture:
            assert picture.size == (image.size if orientation == 1 else image.size[::-1])
            return picture.image.size

    assert decoded(full_hd, 398, 224) == (961, 542)  # half, rounded up
    assert decoded(full_hd, 398, 226) == (1921, 1083)  # 1083 < 2 x 2.4 x 226
    assert decoded(full_hd, 160, 90) == (481, 271)  # 1083 >= 4 x 3.0 x 90
    assert decoded(full_hd, 68, 38) == (241, 136)  # 1083 >= 8 x 3.5 x 38
    assert decoded(full_hd, 68, 38, orientation=6) == (271, 481)  # now 1083 is the width, >= 4 x 3.0 x 68
    assert decoded(full_hd, 402, 38) == (1921, 1083)  # the width, too, must allow for it


@pytest.mark.parametrize("size", [(500, 375), (1075, 1075), (1600, 900)])
def test_jpeg_files_below_the_margin_have_the_bits_of_the_full_decode(size: tuple[int, int]):
    assert difference(jpeg(photograph(*size))) == 0


def test_other_filters_and_formats_have_the_bits_of_the_full_decode(full_hd: Image.Image):
    nearest = PreprocessConfig(shortest_edge=224, crop_size=(224, 224), resample=0)
    assert difference(jpeg(full_hd), nearest) == 0
    np.testing.assert_array_equal(preprocess(encoded(full_hd, "BMP"), CLIP_224), oracle(full_hd))


def test_scaled_decoding_without_crop_and_with_padding(full_hd: Image.Image):
    squashed = PreprocessConfig(shortest_edge=None, resize_to=(200, 220), crop_size=None)
    assert crop_uint8(jpeg(full_hd), squashed).shape == (200, 220, 3)
    assert 0 < difference(jpeg(full_hd), squashed) < 0.8
    padded = PreprocessConfig(shortest_edge=100, crop_size=(224, 120))
    assert crop_uint8(jpeg(full_hd), padded).shape == (224, 120, 3)
    assert 0 < difference(jpeg(full_hd), padded) < 0.8


def test_a_callers_picture_is_neither_scaled_nor_changed(full_hd: Image.Image):
    data = jpeg(full_hd, 6)
    picture = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(crop_uint8(picture, CLIP_224), crop_uint8(open_rgb(data), CLIP_224))
    assert picture.size == full_hd.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_files_that_are_not_scaled_equal_transformers(orientation: int):
    image = photograph(300, 201)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format_ in ("PNG", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        image.save(buffer, format_, exif=exif, lossless=True)
        upright = ImageOps.exif_transpose(Image.open(buffer)).convert("RGB")
        np.testing.assert_array_equal(preprocess(buffer.getvalue(), CLIP_224), oracle(upright))


def test_transparency_in_several_bands_is_laid_on_white():
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 1200, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    white = Image.new("RGBA", image.size, "white")
    expected = Image.alpha_composite(white, image).convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_rgb(image)), np.asarray(expected))


def test_a_crop_is_not_resized_and_cropped_again():
    """Where the shorter edge is larger than the crop, doing so would enlarge it."""
    config = PreprocessConfig(shortest_edge=48, crop_size=(32, 32))
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    crop = crop_uint8(picture, config)
    np.testing.assert_array_equal(crop_uint8(Crop(crop), config), crop)
    assert (crop_uint8(crop, config) != crop).any()
    with pytest.raises(ImageError, match=r"a crop of shape \(60, 80, 3\); expected \(32, 32, 3\)"):
        crop_uint8(Crop(picture), config)


def test_transparency_that_is_multiplied_in_is_laid_on_white_too():
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 128))
    np.testing.assert_allclose(np.asarray(open_rgb(image.convert("RGBa"))), np.asarray(open_rgb(image)), atol=1)
