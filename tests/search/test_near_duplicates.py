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


@pytest.mark.parametrize("block", [2, 3, 100])
def test_chains_are_one_group(block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    groups = groups_of(at(20, 0, 10, 1, 2, 10.2, 30).astype(np.float16))
    assert [rows for rows, _ in groups] == [[1, 3, 4], [2, 5]]
    assert groups[0][1] == pytest.approx(np.cos(2 * STEP), abs=2e-3)
