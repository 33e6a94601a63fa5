"""Groups of near-duplicates, of vectors at known angles."""

from __future__ import annotations

import numpy as np
import pytest

from edgeclip.search import near_duplicates
from edgeclip.search.near_duplicates import ALIKE, collapsed, groups_of

STEP = np.arccos(ALIKE) * 0.9
"""One step is alike; two are not."""


def at(*steps: float) -> np.ndarray:
    angles = STEP * np.array(steps)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_each_row_joins_the_first_that_leads():
    assert collapsed(at(0, 10, 1, 2, 10.5), most=9) == [[0, 2], [1, 4], [3]]
    assert collapsed(at(0, 10, 20, 1), most=2) == [[0, 3], [1]]
    assert collapsed(np.empty((0, 2), np.float32), most=3) == []


def grouped(embeds: np.ndarray, gone: tuple[int, ...] = ()) -> list[list[int]]:
    embeds = embeds.copy()
    embeds[list(gone)] = np.nan

    def read(rows: np.ndarray) -> np.ndarray:
        assert (np.diff(rows) > 0).all()
        return embeds[rows]

    return groups_of(len(embeds), read)


@pytest.mark.parametrize("block", [2, 3, 100])
def test_chains_are_one_group(block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    assert grouped(at(20, 0, 10, 1, 2, 10.2, 30)) == [[1, 3, 4], [2, 5]]
    assert grouped(at(20, 0, 10, 1, 2, 10.2, 30), gone=(3,)) == [[2, 5]]
    assert grouped(at(0, 10)) == []
    assert groups_of(0, lambda rows: at(0)[rows]) == []


@pytest.mark.parametrize("spread", [0.05, 0.12, 0.2])
def test_the_groups_are_those_of_all_products(spread: float, monkeypatch: pytest.MonkeyPatch):
    """Of vectors as CLIP's are, in a cone and in clusters that reach both sides of what is alike."""
    monkeypatch.setattr(near_duplicates, "BLOCK", 64)
    monkeypatch.setattr(near_duplicates, "COMPONENTS", 8)
    rng = np.random.default_rng(0)
    places = rng.standard_normal((100, 96))
    rows = 1.5 + places[rng.integers(100, size=700)] + spread * rng.standard_normal((700, 96))
    embeds = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    joined = embeds @ embeds.T >= ALIKE
    expected, left = [], set(range(700))
    while left:  # by walking from row to row
        group, to_see = set(), {min(left)}
        while to_see:
            row = to_see.pop()
            group.add(row)
            to_see |= set(np.flatnonzero(joined[row]).tolist()) - group
        left -= group
        if len(group) > 1:
            expected.append(sorted(group))
    assert grouped(embeds) == expected
    assert spread > 0.1 or len(expected) > 50


def test_a_large_group_is_read_a_few_times_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", 256)
    rng = np.random.default_rng(0)
    rows = np.ones((2000, 32)) + 0.01 * rng.standard_normal((2000, 32))
    embeds, read = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), []

    def counted(rows: np.ndarray) -> np.ndarray:
        read.append(len(rows))
        return embeds[rows]

    assert groups_of(2000, counted) == [list(range(2000))]
    assert sum(read) < 4 * 2000 + 8 * 2 * 256
