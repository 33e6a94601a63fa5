"""Who wins: the faster, and of those that tie the smaller, whatever a neighbour does."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from edgeclip.tune.contest import FIRST, MOST_ROUNDS, Rounds, hold_contest
from edgeclip.tune.costs import Member
from edgeclip.tune.record import Candidate, Contest

SMALL, LARGE, SLOW = (Candidate(image=name, text=name, threads=1) for name in ("small", "large", "slow"))
SIZES = {SMALL: 1.0, LARGE: 2.0, SLOW: 0.5}


def measured(times: dict[str, float], asked: list[int], *, noise: float = 0.0, seed: int = 0) -> Rounds:
    """Rounds with given times of each kind, all of a round slowed alike, and noise of each."""
    rng = np.random.default_rng(seed)

    def rounds(first: int, count: int, members: Sequence[Member]) -> list[dict[Member, float]]:
        asked.extend([len(members)] * count)
        found = []
        for _ in range(count):
            busy = 1 + 3 * rng.random()
            found.append({m: times[m[1]] * busy * (1 + noise * rng.standard_normal()) for m in members})
        return found

    return rounds


def test_the_faster_wins_and_no_more_is_measured_than_that_takes():
    asked: list[int] = []
    order, contests = hold_contest([SMALL, LARGE], SIZES, measured({"small": 2.0, "large": 1.0}, asked))
    assert order[0] == LARGE
    assert len(asked) == FIRST
    assert contests[0].candidate == SMALL
    assert contests[0].slower.value == pytest.approx(2)


def test_within_two_per_cent_the_smaller_wins():
    order, contests = hold_contest([LARGE, SMALL], SIZES, measured({"small": 1.01, "large": 1.0}, []))
    assert order[0] == SMALL
    assert contests[0].slower.is_tie


@pytest.mark.parametrize("seed", range(5))
def test_what_is_surely_slower_but_hardly_so_is_a_tie_too(seed: int):
    """Two processes that compute the same differ by so much, and the next time by as much the other way."""
    times = {"small": 1.02, "large": 1.0}
    order, contests = hold_contest([LARGE, SMALL], SIZES, measured(times, [], noise=0.01, seed=seed))
    assert order[0] == SMALL
    assert contests[0].slower.high < 1


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_never_decides_is_a_tie_at_last(seed: int):
    asked: list[int] = []
    order, _ = hold_contest([LARGE, SMALL], SIZES, measured({"small": 1.0, "large": 1.0}, asked, noise=0.3, seed=seed))
    assert order[0] == SMALL
    assert len(asked) <= MOST_ROUNDS


def test_who_has_lost_is_measured_no_more():
    asked: list[int] = []
    times = {"small": 1.0, "large": 1.0, "slow": 5.0}
    order, _ = hold_contest([LARGE, SMALL, SLOW], SIZES, measured(times, asked, noise=0.1))
    assert (order[0], order[-1]) == (SMALL, SLOW)
    assert (asked[0], asked[-1]) == (6, 4)


@pytest.mark.parametrize("seed", range(5))
def test_beside_a_busy_neighbour_the_same_one_wins(seed: int):
    times = {"small": 1.0, "large": 0.8, "slow": 1.5}
    order, _ = hold_contest([LARGE, SMALL, SLOW], SIZES, measured(times, [], noise=0.1, seed=seed))
    assert order[0] == LARGE


def test_where_no_round_gives_times_the_smaller_wins_and_the_card_can_be_written():
    order, contests = hold_contest([LARGE, SMALL], SIZES, lambda first, count, members: [])
    assert order[0] == SMALL
    assert msgspec.json.decode(msgspec.json.encode(contests[0]), type=Contest) == contests[0]


def test_one_alone_wins():
    assert hold_contest([SMALL], SIZES, measured({"small": 1.0}, [])) == ([SMALL], [])
