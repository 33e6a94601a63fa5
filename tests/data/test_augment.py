import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.config import PreprocessConfig
from edgeclip.data.augment import Augmentation, AugmentConfig, augment, crop_box, draw
from edgeclip.data.decode_views import View, decode_views
from edgeclip.data.load_data import load_data
from edgeclip.errors import ConfigError
from edgeclip.image import crop_uint8

CONFIG = PreprocessConfig.clip(32)
PLAIN = Augmentation(*[math.nan] * 8)
WHOLE = Augmentation(area=1, ratio=1, x=0, y=0, mirrored=0, brightness=1, contrast=1, saturation=1)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_draws_depend_on_seed_and_index_alone():
    config = AugmentConfig()
    drawn = draw(config, 5, [3, 9, 4], 6)
    assert drawn.shape == (3, 6, 8)
    np.testing.assert_array_equal(drawn[1], draw(config, 5, [9], 6)[0])
    np.testing.assert_array_equal(drawn[1, :3], draw(config, 5, [9], 3)[0])
    assert not np.array_equal(drawn[1, 1:], draw(config, 6, [9], 6)[0, 1:])
    assert np.isnan(drawn[:, 0]).all()
    assert np.isfinite(drawn[:, 1:]).all()


def test_draws_keep_to_their_limits():
    rows = draw(AugmentConfig(min_area=0.3, max_ratio=2, flip=0.25, jitter=0.1), 0, range(400), 6)[:, 1:].reshape(-1, 8)
    area, ratio, x, y, mirrored, *factors = rows.T
    assert 0.3 <= area.min() < 0.31 < 0.99 < area.max() <= 1
    assert 0.5 <= ratio.min() < 0.51 < 1.95 < ratio.max() <= 2
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.05)
    for place in (x, y):
        assert 0 <= place.min() < 0.01 < 0.99 < place.max() <= 1
    assert set(mirrored.tolist()) == {0, 1}
    assert mirrored.mean() == pytest.approx(0.25, abs=0.04)
    for factor in factors:
        assert 0.9 <= factor.min() < 0.91 < 1.09 < factor.max() <= 1.1


def test_crops_by_hand():
    half = WHOLE._replace(area=0.25, ratio=1, x=1, y=0)
    assert crop_box(half, 64, 64) == (32, 0, 64, 32)
    assert crop_box(half._replace(x=0.5, y=0.5), 64, 64) == (16, 16, 48, 48)
    assert crop_box(half._replace(ratio=4), 64, 64) == (0, 0, 64, 16)
    assert crop_box(WHOLE._replace(ratio=4), 64, 32) == (0, 0, 64, pytest.approx(22.627, abs=1e-3))  # cut in width
    assert crop_box(half, 1, 1) == (0, 0, 1, 1)
    cut = augment(PIXELS, half, CONFIG)  # a quarter of 64x64 pixels is 32x32: nothing is resampled
    np.testing.assert_array_equal(cut, PIXELS[:32, 32:])
    np.testing.assert_array_equal(augment(PIXELS, half._replace(mirrored=1), CONFIG), PIXELS[:32, :31:-1])


def test_colours_by_hand():
    grey = np.full((32, 32, 3), (100, 150, 200), np.uint8)
    np.testing.assert_array_equal(augment(grey, WHOLE._replace(brightness=0.5), CONFIG)[0, 0], [50, 75, 100])
    luma = round((100 * 299 + 150 * 587 + 200 * 114) / 1000)
    for change in ({"contrast": 0.0}, {"saturation": 0.0}):
        np.testing.assert_array_equal(augment(grey, WHOLE._replace(**change), CONFIG)[0, 0], [luma] * 3)


def test_the_first_is_the_plain_crop():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (70, 99, 3), dtype=np.uint8))
    np.testing.assert_array_equal(augment(image, PLAIN, CONFIG), crop_uint8(image, CONFIG))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (33, 31)])
def test_any_image_gives_the_right_size(size: tuple[int, int]):
    pixels = np.full((*size, 3), 7, np.uint8)
    for row in draw(AugmentConfig(min_area=0.01, max_ratio=10), 0, [0], 20)[0].tolist():
        assert augment(pixels, Augmentation(*row), CONFIG).shape == (32, 32, 3)


def test_images_of_many_sizes_are_refused():
    with pytest.raises(ConfigError, match="crop_size"):
        augment(PIXELS, WHOLE, PreprocessConfig(shortest_edge=32, crop_size=None))


@pytest.mark.parametrize("options", [{"min_area": 0.0}, {"max_ratio": 0.5}, {"flip": 1.5}, {"jitter": float("nan")}])
def test_settings_are_checked(options: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        AugmentConfig(**options)


def test_worker_processes_replay_the_same_pixels(captioned_folder: Path):
    records = load_data(str(captioned_folder), samples=0, seed=0).records
    drawn = draw(AugmentConfig(), 0, range(6), 2)
    views = [View(index, Augmentation(*rows[1].tolist())) for index, rows in enumerate(drawn)]
    here, there = (list(decode_views(records, [views[:4], views[4:]], CONFIG, workers=n)) for n in (0, 1))
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(here[0].pixels[2], augment(records[2].image.read(), views[2].augmentation, CONFIG))
    assert not np.array_equal(here[0].pixels[2], crop_uint8(records[2].image.read(), CONFIG))
