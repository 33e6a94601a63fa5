"""What a model loses against its teacher on the same pairs: a paired bootstrap of the difference.

Most queries are answered alike by both, so that the difference is known far better than either recall.

Shape legend: I images and as many texts, R bootstrap resamples.
"""

from __future__ import annotations

import math

import numpy as np

from edgeclip.config import Config
from edgeclip.evaluate.judge import Found
from edgeclip.evaluate.retrieval import KS, RESAMPLES
from edgeclip.results import Interval

Z95 = 1.96


class Drop(Config, frozen=True, kw_only=True):
    """Points lost of what is found at 1, 5 and 10, see `judge`: the mean of both directions with 95 % intervals.

    A gain is negative.
    """

    r1: Interval
    r5: Interval
    r10: Interval

    @property
    def most(self) -> float:
        """The largest loss that the intervals do not exclude."""
        return max(self.r1.high, self.r5.high, self.r10.high)


def drop(teacher: Found, model: Found) -> Drop:
    """The loss at 1, 5 and 10.

    The interval counts one image more that the teacher alone finds, and one more that the model alone finds: without
    them no difference among ten pairs would be proof that there is none (after Bonett and Price 2012).

    Args:
        teacher: what it finds on some pairs.
        model: what the model finds on the same.
    """
    I = teacher.shape[-1]
    draws_RI = np.random.default_rng(0).integers(I + 2, size=(RESAMPLES, I + 2))
    intervals = {}
    for k, found_DI, found_by_model_DI in zip(KS, teacher, model, strict=True):
        lost_I = (found_DI - found_by_model_DI).mean(axis=0)
        with_both_I = np.append(lost_I, (1.0, -1.0))
        low, high = np.percentile(100 * with_both_I[draws_RI].mean(axis=1), (2.5, 97.5))
        intervals[f"r{k}"] = Interval(
            value=round(100 * float(lost_I.mean()), 3), low=round(float(low), 3), high=round(float(high), 3)
        )
    return Drop(**intervals)


def smallest_drop_shown(pairs: int) -> float:
    """Points that even a model which answers as its teacher does can't be shown not to lose on so many pairs."""
    return 100 * Z95 * math.sqrt(2) / (pairs + 2)


def pairs_needed(max_drop: float) -> int:
    """The fewest pairs on which no larger loss than this can be shown."""
    return math.ceil(100 * Z95 * math.sqrt(2) / max_drop) - 2
