"""Pictures that are nearly the same: a burst, a copy in another size, an edited one.

Shape legend: K vectors, N all vectors, B of a block, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeclip.progress import task

ALIKE = 0.985
"""The cosine from which on two pictures are near-duplicates."""
BLOCK = 2048


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


def groups_of(embeds_NE: NDArray[np.float16]) -> list[tuple[list[int], float]]:
    """All groups of two rows or more, with the least cosine of a row and the group's first; the largest group first.

    Rows are in one group where a chain of near-duplicates leads from one to the other. All pairs are compared: twice
    the rows take four times as long.
    """
    leader = np.arange(len(embeds_NE))
    with task("Comparing", len(embeds_NE), unit="photos") as advance:
        for start, pairs in _pairs(embeds_NE):
            for one, other in pairs:
                low, high = sorted((_leader(leader, one), _leader(leader, other)))
                leader[high] = low
            advance(min(BLOCK, len(embeds_NE) - start))
    groups: dict[int, list[int]] = {}
    for row in range(len(leader)):
        groups.setdefault(_leader(leader, row), []).append(row)
    found = [rows for rows in groups.values() if len(rows) > 1]
    found.sort(key=lambda rows: (-len(rows), rows[0]))
    return [(rows, _least(embeds_NE[rows].astype(np.float32))) for rows in found]


def _pairs(embeds_NE: NDArray[np.float16]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """For each block of rows, where it begins and its near-duplicates among these rows and the later ones."""
    starts = range(0, len(embeds_NE), BLOCK)
    for start in starts:
        block_BE, pairs = embeds_NE[start : start + BLOCK].astype(np.float32), []
        for later in starts[start // BLOCK :]:
            rows, columns = np.nonzero(block_BE @ embeds_NE[later : later + BLOCK].astype(np.float32).T >= ALIKE)
            rows, columns = rows + start, columns + later
            pairs += list(zip(rows[rows < columns].tolist(), columns[rows < columns].tolist(), strict=True))
        yield start, pairs


def _leader(leader: NDArray[np.int64], row: int) -> int:
    """The lowest row of a row's group so far; the way there is shortened."""
    while leader[row] != row:
        leader[row] = leader[leader[row]]
        row = int(leader[row])
    return row


def _least(embeds_GE: NDArray[np.float32]) -> float:
    return float((embeds_GE @ embeds_GE[0]).min())
