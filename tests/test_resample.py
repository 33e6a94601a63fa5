import numpy as np
import pytest
from PIL import Image

from edgeclip.resample import bicubic_window


@pytest.mark.parametrize(
    ("source", "target"), [((31, 17), (200, 90)), ((300, 200), (64, 50)), ((64, 9), (64, 80)), ((300, 7), (90, 7))]
)
def test_a_window_has_the_bits_of_pillows_resize(source: tuple[int, int], target: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (source[1], source[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    whole = np.asarray(image.resize(target, Image.Resampling.BICUBIC))
    x, y, width, height = target[0] // 5, target[1] // 4, target[0] // 2, target[1] // 2
    window = bicubic_window(image, size=target, start=(x, y), extent=(width, height))
    np.testing.assert_array_equal(window, whole[y : y + height, x : x + width])
