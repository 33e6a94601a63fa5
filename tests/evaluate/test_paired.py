"""What is lost on the same pairs, by hand, and how few pairs prove how little."""

import numpy as np
import pytest

from edgeclip.evaluate.paired import drop, pairs_needed, smallest_drop_shown


def found(*hits: int, of: int) -> np.ndarray:
    """By direction, found at 1 for the first so many of some images, never found for the others: (K, D, I)."""
    return np.array([[np.arange(of) < count for count in hits]] * 3, float)


def test_points_lost_are_the_mean_of_both_directions():
    lost = drop(found(80, 60, of=100), found(78, 61, of=100))
    assert lost.r1.value == pytest.approx((2 - 1) / 2)
    assert lost.r1.low < 0.5 < lost.r1.high
    assert lost.r5 == lost.r1  # what is found at all is found first


def test_the_interval_is_that_of_the_differences_with_one_image_more_either_way():
    lost = drop(found(900, 900, of=1000), found(850, 850, of=1000)).r1
    differences = np.array([1.0] * 50 + [0.0] * 950 + [1.0, -1.0])
    half = 196 * differences.std() / np.sqrt(1002)
    middle = 100 * differences.mean()
    assert (lost.low, lost.high) == pytest.approx((middle - half, middle + half), abs=0.1)


def test_no_difference_among_few_pairs_proves_little():
    same = found(10, 10, of=10)
    assert drop(same, same).r1.value == 0
    assert drop(same, same).most > 10
    many = found(2000, 2000, of=2000)
    assert 0 < drop(many, many).most < 0.2


@pytest.mark.parametrize("max_drop", [0.5, 1.0, 5.0])
def test_pairs_needed_are_the_fewest_that_show_it(max_drop: float):
    pairs = pairs_needed(max_drop)
    assert smallest_drop_shown(pairs) <= max_drop < smallest_drop_shown(pairs - 1)
    same = found(pairs, pairs, of=pairs)
    assert drop(same, same).most == pytest.approx(max_drop, rel=0.1)
