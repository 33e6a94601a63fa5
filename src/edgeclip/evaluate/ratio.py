"""How many times slower one thing is than another that was measured in turn with it, and how sure that is.

Shape legend: R rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeclip.config import Config

TIE = 0.02
"""A ratio within so much of 1 is a tie."""
FEWEST_ROUNDS = 6
"""With fewer the largest and smallest ratio are not a 95 % interval of the median."""


class Ratio(Config, frozen=True, kw_only=True):
    """The median of the ratios of rounds, and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_tie(self) -> bool:
        """Whether both are equally fast for all that it matters."""
        return self.low >= 1 - TIE and self.high <= 1 + TIE

    @property
    def is_decided(self) -> bool:
        """Whether more rounds would not change what is said: one is faster, or it is a tie."""
        return self.is_tie or self.low > 1 or self.high < 1


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio of what was measured in the same rounds, R of each.

    Of a round only its own ratio counts, so that drift of the machine's speed meets both alike. The interval is that
    of order statistics: it supposes nothing of how times are spread, and a neighbour's bursts hardly move it.
    """
    ratios_R = np.sort(np.asarray(ours) / np.asarray(theirs))
    low = _rank(len(ratios_R))
    value, least, most = (float(x) for x in (np.median(ratios_R), ratios_R[low], ratios_R[-1 - low]))
    return Ratio(value=round(value, 4), low=round(least, 4), high=round(most, 4))


def _rank(rounds: int) -> int:
    """How far from either end of sorted values a 95 % interval of their median ends; 0 where there are few."""
    below, place = 0.0, 0
    while below + (chance := math.comb(rounds, place) / 2**rounds) <= 0.025:
        below, place = below + chance, place + 1
    return max(place - 1, 0)
