"""What is lost on the same pairs, by hand, and how few pairs prove how little."""

import numpy as np
import pytest

from edgeclip.evaluate.paired import drop, pairs_needed, smallest_drop_shown


def ranks(*hits: int, of: int) -> np.ndarray:
    """Found at 1 for the first so many of some images, never found for the others."""
    (found,) = hits
    return np.where(np.arange(of) < found, 0, 100)


def test_points_lost_are_the_mean_of_both_directions():
    teacher = (ranks(80, of=100), ranks(60, of=100))
    model = (ranks(78, of=100), ranks(61, of=100))
    lost = drop(teacher, model)
    assert lost.r1.value == pytest.approx((2 - 1) / 2)
    assert lost.r1.low < 0.5 < lost.r1.high
    assert lost.r5 == lost.r1  # what is found at all is found first


def test_the_interval_is_that_of_the_differences_with_one_image_more_either_way():
    teacher, model = (ranks(900, of=1000),) * 2, (ranks(850, of=1000),) * 2
    lost = drop(teacher, model).r1
    differences = np.array([1.0] * 50 + [0.0] * 950 + [1.0, -1.0])
    half = 196 * differences.std() / np.sqrt(1002)
    middle = 100 * differences.mean()
    assert (lost.low, lost.high) == pytest.approx((middle - half, middle + half), abs=0.1)


def test_no_difference_among_few_pairs_proves_little():
    same = (ranks(10, of=10),) * 2
    assert drop(same, same).r1.value == 0
    assert drop(same, same).most > 10
    many = (ranks(2000, of=2000),) * 2
    assert 0 < drop(many, many).most < 0.2


@pytest.mark.parametrize("max_drop", [0.5, 1.0, 5.0])
def test_pairs_needed_are_the_fewest_that_show_it(max_drop: float):
    pairs = pairs_needed(max_drop)
    assert smallest_drop_shown(pairs) <= max_drop < smallest_drop_shown(pairs - 1)
    found = (ranks(pairs, of=pairs),) * 2
    assert drop(found, found).most == pytest.approx(max_drop, rel=0.1)
