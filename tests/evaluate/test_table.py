"""Rows by hand, and models measured in turn."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.evaluate.table import Contender, Cost, Embedded, jpeg, make_row, measure_in_turn
from edgeclip.results import Latency, Percentiles

TIME = Percentiles(p50=1.0, p95=2.0)
COST = Cost(50.0, Latency(image=TIME, text=TIME, i2t=TIME, t2i=TIME))


def test_a_row_by_hand():
    """Two images with two captions each; the second image's first caption looks like the first image."""
    images = np.eye(2, dtype=np.float32)
    texts = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float32)
    contender = Contender("DISTILLED", "half, int8", Path("bundle"), "int8", params=7, size_mb=1.23456)
    embeds = Embedded(images, texts, np.array([0.6, 0.8], np.float32))
    row = make_row(contender, COST, embeds, ["a", "b", "c", "d"], np.array([0, 0, 1, 1]))
    assert (row.i2t.r1.value, row.t2i.r1.value) == (100, 50)  # "a" and "c": the second text prefers the first image
    assert (row.standard.i2t.r1.value, row.standard.t2i.r1.value) == (100, 75)
    assert row.caption == "c"  # "d", which is as near, is no first caption
    assert (row.size_mb, row.params, row.peak_rss_mb) == (1.235, 7, 50.0)


@pytest.mark.parametrize(("repeats", "order"), [(10, "ababab"), (9, "ab")])
def test_models_are_measured_in_turn(repeats: int, order: str):
    called, done = [], []

    def measure(name: str, milliseconds: float) -> dict[str, object]:
        called.append(name)
        times = {call: [milliseconds, milliseconds + len(called)] for call in ("image", "text", "i2t", "t2i")}
        return {"times": times, "peak_rss_mb": 100.0 + len(called)}

    costs = measure_in_turn(
        [lambda: measure("a", 1.0), lambda: measure("b", 9.0)], repeats=repeats, advance=done.append
    )
    assert "".join(called) == order
    assert sum(done) == len(order)
    assert costs[0].latency.image.p50 < 9 <= costs[1].latency.image.p50
    assert [cost.peak_rss_mb for cost in costs] == [99.0 + len(order), 100.0 + len(order)]  # the largest


def test_a_crop_as_a_file():
    crop = np.full((8, 6, 3), 200, np.uint8)
    image = Image.open(io.BytesIO(jpeg(crop)))
    assert (image.format, image.size) == ("JPEG", (6, 8))
    np.testing.assert_allclose(np.asarray(image), crop, atol=2)
