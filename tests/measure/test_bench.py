"""A bundle's figures, and two bundles in turn, from processes of their own."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgeclip.evaluate.ratio import Ratio
from edgeclip.report.bench import compared

pytestmark = pytest.mark.slow


def test_two_bundles_in_turn(edgeclip_here, bundles: dict[str, Path], tmp_path: Path):
    plot = tmp_path / "times.svg"
    done = edgeclip_here(
        *("bench", bundles["int8"], "--against", bundles["fp32"], "--threads", 1, "--repeats", 10, "--seconds", 0.5),
        *("--json", "--plot", plot),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    int8, fp32 = found["bundles"]
    assert (int8["precision"], fp32["precision"]) == ("int8", "fp32")
    for one in found["bundles"]:
        assert 0 < one["image_ms"]["p50"] <= one["image_ms"]["p95"] <= one["image_ms"]["p99"]
        assert one["cold_ms"] > one["open_ms"] > one["image_ms"]["p50"]
        assert one["images_per_s"] > 0
        assert "1" in one["scaling"]
    for ratio in found["slower"].values():
        assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]
    assert len(ElementTree.parse(plot).findall(".//{*}polyline")) == 2  # noqa: S314 - our own


def test_what_is_no_bundle_is_a_mistake(mistake, tmp_path: Path):
    assert "a bundle made by `edgeclip export`" in mistake("bench", tmp_path)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        ((2.0, 1.9, 2.1), "takes 2.00 times as long (1.90 to 2.10) as"),
        ((0.5, 0.4, 0.625), "is 2.00 times as fast (1.60 to 2.50) as"),
        ((1.0, 0.99, 1.01), "ties (ratio 1.000, 95 % interval 0.990 to 1.010) with"),
        ((1.1, 0.9, 1.3), "is not told apart (ratio 1.100, 95 % interval 0.900 to 1.300) from"),
    ],
)
def test_a_ratio_in_words(ratio: tuple[float, float, float], words: str):
    value, low, high = ratio
    assert compared(Ratio(value=value, low=low, high=high)) == words
