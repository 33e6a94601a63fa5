"""Ratios of what was measured in turn: the interval by order statistics, ties, and neighbours."""

import math

import numpy as np
import pytest

from edgeclip.evaluate.ratio import ratio


def test_the_interval_is_of_order_statistics():
    """Of 20 values the 6th smallest and the 6th largest: fewer than 6 heads of 20 have a chance of 2.07 %."""
    values = np.arange(1.0, 21.0)
    found = ratio(values[::-1], np.ones(20))
    assert (found.value, found.low, found.high) == (10.5, 6, 15)
    assert (
        sum(math.comb(20, heads) for heads in range(6)) / 2**20
        < 0.025
        < (sum(math.comb(20, heads) for heads in range(7)) / 2**20)
    )


@pytest.mark.parametrize("rounds", [1, 5])
def test_few_rounds_have_the_whole_range(rounds: int):
    found = ratio([float(n + 1) for n in range(rounds)], [1.0] * rounds)
    assert (found.low, found.high) == (1, rounds)


def test_a_ratio_within_two_per_cent_is_a_tie_and_others_are_decided_where_1_is_excluded():
    assert ratio([1.01] * 8, [1.0] * 8).is_tie
    assert ratio([1.01] * 8, [1.0] * 8).is_decided
    faster = ratio([0.9] * 8, [1.0] * 8)
    assert faster.is_decided
    assert not faster.is_tie
    assert not ratio([0.9, 1.1] * 4, [1.0] * 8).is_decided


def test_a_neighbours_bursts_move_little():
    ours, theirs = [2.0] * 20, [1.0] * 20
    ours[3] = ours[9] = theirs[5] = 50.0
    assert (ratio(ours, theirs).low, ratio(ours, theirs).high) == (2, 2)
