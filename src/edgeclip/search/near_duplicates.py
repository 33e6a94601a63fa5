"""Pictures that are nearly the same: a burst, a copy in another size, an edited one.

Shape legend: K vectors, E embedding size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.985
"""The cosine from which on two pictures are near-duplicates."""


def collapsed(embeds_KE: NDArray[np.float32], *, most: int) -> list[list[int]]:
    """Groups of rows, each led by the best of it, in order: a row joins the first leader that it is alike.

    Args:
        embeds_KE: unit vectors, the best first.
        most: how many groups are wanted; later rows join these or are left out.
    """
    groups: list[list[int]] = []
    leaders_GE = np.empty((0, embeds_KE.shape[1]), np.float32)
    for row, embeds_E in enumerate(embeds_KE):
        cosines_G = leaders_GE @ embeds_E
        if len(groups) and cosines_G.max() >= ALIKE:
            groups[int(np.argmax(cosines_G >= ALIKE))].append(row)
        elif len(groups) < most:
            groups.append([row])
            leaders_GE = np.concatenate([leaders_GE, embeds_E[None]])
    return groups
