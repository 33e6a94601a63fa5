"""Pictures that are nearly the same: a burst, a copy in another size, an edited one.

Shape legend: K vectors, N all vectors, B of a block, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeclip.progress import task

ALIKE = 0.985
"""The cosine from which on two pictures are near-duplicates."""
BLOCK = 512
"""Rows whose products with as many others stay in the processor's cache."""
COMPONENTS, SAMPLED = 31, 4096
ROUNDED = 1e-3
"""How much too low single precision may leave what a product is at most."""
Read: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def collapsed(embeds_KE: NDArray[np.float32], *, most: int) -> list[list[int]]:
    """Groups of rows, each led by the best of it, in order: a row joins the first leader that it is alike.

    Args:
        embeds_KE: unit vectors, the best first.
        most: how many groups are wanted; later rows join these or are left out.
    """
    groups: list[list[int]] = []
    leaders_GE = np.empty((0, embeds_KE.shape[1]), np.float32)
    for row, embeds_E in enumerate(embeds_KE):
        alike_G = leaders_GE @ embeds_E >= ALIKE
        if alike_G.any():
            groups[int(np.argmax(alike_G))].append(row)
        elif len(groups) < most:
            groups.append([row])
            leaders_GE = np.concatenate([leaders_GE, embeds_E[None]])
    return groups


def groups_of(count: int, read: Read) -> list[list[int]]:
    """All groups of two rows or more, each in order.

    Rows are in one group where a chain of near-duplicates leads from one to the other. All pairs are compared by what a
    few numbers of each say of their cosine at most, and those that may be alike by the whole vectors. Measured for
    100,000 CLIP-like vectors: 8 s of processor time. Counting the bits of signs, which is not exact, takes six times as
    long a pair.

    Args:
        count: how many rows there are.
        read: gives unit vectors (K, E) of ascending rows (K,); NaN where one is gone.
    """
    groups, starts = _Groups(count), range(0, count, BLOCK)
    sketches_NS = _sketches(count, read)
    with task("Comparing", count, unit="photos") as advance:
        for start in starts:
            block_BS = sketches_NS[start : start + BLOCK]
            for later in starts[start // BLOCK :]:
                may_BB = block_BS @ sketches_NS[later : later + BLOCK].T >= ALIKE - ROUNDED
                if may_BB.any():
                    rows, others = np.nonzero(may_BB)
                    _join(groups, rows + start, others + later, read)
            advance(len(block_BS))
    return groups.found()


def _sketches(count: int, read: Read) -> NDArray[np.float32]:
    """Of each row its components in the directions in which rows differ most, and the length of the rest (N, S).

    The product of two is no less than that of the vectors, for that of their rests is at most that of the rests'
    lengths (Cauchy and Schwarz).
    """
    sample_NE = read(np.arange(0, count, -(-count // SAMPLED))) if count else np.empty((0, 1), np.float32)
    sample_NE = sample_NE[np.isfinite(sample_NE).all(1)]
    if not len(sample_NE):
        return np.zeros((count, 1), np.float32)
    apart_NE = sample_NE - sample_NE.mean(0)
    axes_ES = np.linalg.eigh(apart_NE.T @ apart_NE)[1][:, -COMPONENTS:]
    sketches_NS = np.empty((count, axes_ES.shape[1] + 1), np.float32)
    for start in range(0, count, BLOCK):
        embeds_BE = read(np.arange(start, min(start + BLOCK, count)))
        parts_BS = embeds_BE @ axes_ES
        rest_B = np.einsum("be,be->b", embeds_BE, embeds_BE) - np.einsum("bs,bs->b", parts_BS, parts_BS)
        sketches_NS[start : start + BLOCK, :-1] = parts_BS
        sketches_NS[start : start + BLOCK, -1] = np.sqrt(np.maximum(rest_B, 0))
    return sketches_NS


def _join(groups: _Groups, rows: NDArray[np.int64], others: NDArray[np.int64], read: Read) -> None:
    """Join those of the pairs of two blocks that are alike and not in one group yet."""
    is_open = (rows < others) & (groups.leaders(rows) != groups.leaders(others))
    if not is_open.any():
        return
    rows, others = np.unique(rows[is_open]), np.unique(others[is_open])
    places, other_places = np.nonzero(read(rows) @ read(others).T >= ALIKE)
    rows, others = rows[places], others[other_places]
    while len(rows):  # one of each row at a time: most of a large group are then in one
        firsts = np.unique(others, return_index=True)[1]
        groups.join(rows[firsts], others[firsts])
        is_open = groups.leaders(rows) != groups.leaders(others)
        rows, others = rows[is_open], others[is_open]


class _Groups:
    """Rows, each with one of its group that is not after it; the first of a group has itself."""

    def __init__(self, count: int) -> None:
        self._before = np.arange(count)

    def leaders(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first of each row's group; the way there is shortened."""
        found = self._before[rows]
        while ((further := self._before[found]) != found).any():
            found = further
        self._before[rows] = found
        return found

    def join(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Make one group of the two of each pair."""
        for row, other in zip(rows.tolist(), others.tolist(), strict=True):
            low, high = sorted((self._leader(row), self._leader(other)))
            self._before[high] = low

    def _leader(self, row: int) -> int:
        while self._before[row] != row:
            self._before[row] = self._before[self._before[row]]
            row = int(self._before[row])
        return row

    def found(self) -> list[list[int]]:
        """Groups of two or more."""
        leaders = self.leaders(np.arange(len(self._before)))
        rows = np.flatnonzero(np.bincount(leaders, minlength=len(leaders))[leaders] > 1)
        rows = rows[np.argsort(leaders[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(leaders[rows])) + 1
        return [part.tolist() for part in np.split(rows, cuts) if len(part)]
