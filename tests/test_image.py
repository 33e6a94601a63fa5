import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError
from edgeclip.image import center_crop, crop_uint8, normalize, open_rgb, preprocess

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


def test_bits_equal_transformers_at_3x5000_and_10_megapixels():
    for size in ((3, 5000), (3872, 2592)):
        image = picture(*size)
        np.testing.assert_array_equal(preprocess(image, CLIP_224), oracle(image))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**16))
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
