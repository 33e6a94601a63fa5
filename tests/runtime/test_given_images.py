"""One image or text, or any iterable of them, given to a bundle and to a checkpoint alike."""

import io
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.checkpoint import Checkpoint
from edgeclip.errors import ConfigError, EdgeclipError, ImageError, InputError
from edgeclip.runtime import ClipRuntime
from edgeclip.runtime.stream import FLUSH

Encoder = ClipRuntime | Checkpoint


@pytest.fixture(params=["bundle", "checkpoint"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return request.getfixturevalue("clip" if request.param == "bundle" else "checkpoint")


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Kernels round by the batch; one row too many or in another place is far off."""
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=1e-6)


ONE: list[Callable[[Path], object]] = [
    str,
    lambda path: path,
    Path.read_bytes,
    Image.open,
    lambda path: np.asarray(Image.open(path)),
    lambda path: np.asarray(Image.open(path).convert("RGBA")),
]


@pytest.mark.parametrize("given", ONE)
def test_one_image_is_one_row(encoder: Encoder, pictures: list[Path], given: Callable[[Path], object]):
    same(encoder.encode_image(given(pictures[0])), encoder.encode_image([pictures[0]]))


def test_one_grey_picture_is_no_batch(encoder: Encoder):
    grey = np.arange(40 * 50, dtype=np.uint8).reshape(40, 50)
    assert encoder.encode_image(grey).shape == (1, 16)


SEVERAL: list[Callable[[list[Path]], object]] = [
    tuple,
    iter,
    lambda paths: (path for path in paths),
    lambda paths: dict.fromkeys(paths).keys() and map(str, paths),
    lambda paths: np.array(list(map(str, paths))),
    lambda paths: np.array(paths, object),
    lambda paths: {str(path): path for path in paths}.values(),
]


@pytest.mark.parametrize("given", SEVERAL)
def test_any_iterable_of_images(encoder: Encoder, pictures: list[Path], given: Callable[[list[Path]], object]):
    same(encoder.encode_image(given(pictures)), encoder.encode_image(pictures))


def test_an_array_of_four_axes_is_several_images(encoder: Encoder):
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    same(encoder.encode_image(frames), encoder.encode_image(list(frames)))
    same(encoder.encode_image(frames[:0]), encoder.encode_image([]))


@pytest.mark.parametrize(
    "given",
    [None, 3, 2.5, {"a.png": 1}, {"a.png"}, io.BytesIO(b"GIF"), bytearray(b"GIF"), np.array("a.png"), object()],
    ids=lambda given: type(given).__name__,
)
def test_neither_an_image_nor_several(encoder: Encoder, given: object):
    with pytest.raises(InputError, match=r"^`images` of the type \w+; expected paths, .*; give a list of them$") as got:
        encoder.encode_image(given)
    assert isinstance(got.value, EdgeclipError)
    assert isinstance(got.value, TypeError)


@pytest.mark.parametrize("item", [None, 3, ["a.png"], {}, FLUSH, np.float32(1)], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_item_of_another_type(encoder: Encoder, pictures: list[Path], item: object, on_error: str):
    """Also where images are left out: that is not what is wrong with it."""
    with pytest.raises(InputError, match=rf"`images` with one of the type {type(item).__name__} at index 1"):
        encoder.encode_image([pictures[0], item], on_error=on_error)


@pytest.mark.parametrize(
    "array", [np.zeros((8, 8, 3)), np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 7), np.uint8)]
)
def test_an_array_of_other_numbers_or_shape(encoder: Encoder, array: np.ndarray):
    with pytest.raises(ImageError, match=r"expected uint8 of shape"):
        encoder.encode_image(array)


def test_one_text_or_any_iterable_of_texts(encoder: Encoder):
    texts = ["a red ball", "two blue boxes"]
    expected = encoder.encode_text(texts)
    for given in (tuple(texts), iter(texts), (text for text in texts), np.array(texts), np.array(texts, object)):
        same(encoder.encode_text(given), expected)
    same(encoder.encode_text("a red ball"), expected[:1])
    same(encoder.encode_text(np.str_("a red ball")), expected[:1])


@pytest.mark.parametrize("given", [None, 3, b"a", {"a": 1}, {"a"}, [["a"]], ["a", None], [b"a"], np.array([b"a"])])
def test_what_is_no_text(encoder: Encoder, given: object):
    with pytest.raises(InputError, match=r"^`texts` .*expected strings"):
        encoder.encode_text(given)


def test_broken_images_are_raised_or_left_out(encoder: Encoder, pictures: list[Path], tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    given = [tmp_path / "broken.jpg", pictures[0], pictures[1], tmp_path / "none.png", pictures[2]]
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        encoder.encode_image(given)
    told: list[tuple[int, str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embeds = encoder.encode_image(
            given, on_error="skip", on_skip=lambda index, error: told.append((index, error.got))
        )
    same(embeds, encoder.encode_image(pictures))
    assert [index for index, _ in told] == [0, 3]
    assert "none.png" in told[1][1]


def test_no_thread_outlives_what_was_raised(clip: ClipRuntime, pictures: list[Path]):
    with pytest.raises(ImageError) as caught:
        clip.encode_image(["none.png", *pictures], workers=2)
    assert caught.value  # with its traceback
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeclip")]


def test_where_nobody_is_told_of_images_left_out_a_warning_names_them(encoder: Encoder, pictures: list[Path]):
    with pytest.warns(UserWarning, match=r"2 images were left out.*0 \(.*none\.png.*2 \(.*`on_skip`") as warned:
        embeds = encoder.encode_image(["none.png", pictures[0], "nor.png"], on_error="skip")
    assert embeds.shape == (1, 16)
    assert warned[0].filename == __file__  # the caller's line, not ours
    with pytest.warns(UserWarning, match="7 images"):
        assert encoder.encode_image(["none.png"] * 7, on_error="skip").shape == (0, 16)


def test_choices_that_are_none(encoder: Encoder, pictures: list[Path]):
    with pytest.raises(ConfigError, match="`on_error` 'ignore'; expected raise or skip"):
        encoder.encode_image(pictures, on_error="ignore")
    for value in (np.zeros(3), None, ["skip"]):
        with pytest.raises(ConfigError, match="`on_error`"):
            encoder.encode_image(pictures, on_error=value)
    with pytest.raises(InputError, match="`on_skip` 3"):
        encoder.encode_image(pictures, on_error="skip", on_skip=3)
    with pytest.raises(ConfigError, match="`on_skip` with `on_error` raise"):
        encoder.encode_image(pictures, on_skip=print)


def test_streams_take_one_or_several_too(clip: ClipRuntime, pictures: list[Path]):
    same(np.stack([row for _, row in clip.stream_images(str(pictures[0]))]), clip.encode_image(pictures[:1]))
    same(np.stack([row for _, row in clip.stream_texts("a red ball")]), clip.encode_text("a red ball"))
    with pytest.raises(InputError, match="`images` of the type int"):
        clip.stream_images(3)
    with pytest.raises(InputError, match="`texts`"):
        list(clip.stream_texts(["a", None]))


@pytest.mark.parametrize("name", ["batch_size", "workers"])
@pytest.mark.parametrize("value", ["2", 2.5, None, True, float("nan"), [1], int, np.zeros(3), np.array("a")], ids=str)
def test_numbers_that_are_none(clip: ClipRuntime, pictures: list[Path], name: str, value: object):
    with pytest.raises(InputError, match=rf"`{name}` .*expected a whole number"):
        clip.encode_image(pictures, **{name: value})
    with pytest.raises(ConfigError, match="`dtype`"):
        clip.encode_image(pictures, dtype=value)
    assert clip.encode_image(pictures, **{name: np.int64(1)}).shape == (3, 16)
