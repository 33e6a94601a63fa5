"""How much of what its queries should find a model finds: their own pairs, or what its teacher finds.

Pictures without captions have no right answers. There the teacher's own ranking is taken for the truth, weighed by how
sure the teacher is: what a model has among its first k is worth the sum of the teacher's probabilities of it, out of
the most that k could be worth (normalised cumulative gain, Järvelin and Kekäläinen 2002). To change places with what
the teacher holds for as likely costs nothing; not to find what it is sure of costs all.

Shape legend: K the numbers in `KS`, D the two directions, I images and as many texts, E embedding size, Q queries and C
what each could find.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeclip.errors import DataError
from edgeclip.evaluate.retrieval import KS, TIE, mean_found, ranks

Embeds = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Of I images and of I texts, (I, E) both, L2-normalised."""
Found = NDArray[np.float64]
"""(K, D, I): of each query, image to text and text to image, how much of what it should find is among the first k."""
Judge = Callable[[Embeds], Found]
EMPTY = 0.8
"""A ranking that is met so far by one answer to every query tells hardly one query from another."""


def own_pairs(embeds: Embeds) -> Found:
    """1 where the text of the same number is among the first k of an image, or the image of a text; else 0."""
    found_DI = np.array(ranks(*embeds, np.arange(len(embeds[0]))))
    return np.array([found_DI < k for k in KS], np.float64)


def check_better_than_chance(teacher: Found) -> None:
    """Refuse a gate that would mean nothing.

    Raises:
        DataError: in either direction the teacher's R@1 may be that of guessing.
    """
    I = teacher.shape[-1]
    for found_KI in teacher.transpose(1, 0, 2):
        r1 = mean_found(found_KI, np.arange(I)).r1
        if r1.low <= 100 / I:
            raise DataError(
                f"a teacher with R@1 {r1.value:.1f} on {I} pairs, which guessing reaches too",
                expected="a model that knows this data",
                fix="give `data` of the kind that the model was trained on",
            )


class TeachersRanking:
    """What a teacher makes of images and texts that are not each other's."""

    def __init__(self, teacher: Embeds, logit_scale: float) -> None:
        """Take the teacher's probabilities, (Q, C) of each direction, for what is right."""
        self._gains = [_probabilities(logit_scale * scores_QC) for scores_QC in _scores(teacher)]

    def __call__(self, embeds: Embeds) -> Found:
        """Of what the teacher's own first k are worth, what the model's are; ties count against the model."""
        found = np.empty((len(KS), 2, len(embeds[0])))
        for direction, (gains_QC, scores_QC) in enumerate(zip(self._gains, _scores(embeds), strict=True)):
            order_QC = np.lexsort((gains_QC, -np.round(scores_QC / TIE)), axis=-1)
            for row, k in enumerate(KS):
                most_Q = -np.sort(-gains_QC, axis=1)[:, :k].sum(axis=1)
                found[row, direction] = np.take_along_axis(gains_QC, order_QC[:, :k], axis=1).sum(axis=1) / most_Q
        return found

    def same_first(self, embeds: Embeds) -> float:
        """Per cent of the queries, of both directions, whose first answer is the teacher's."""
        alike = [
            gains_QC.argmax(axis=1) == scores_QC.argmax(axis=1)
            for gains_QC, scores_QC in zip(self._gains, _scores(embeds), strict=True)
        ]
        return round(100 * float(np.mean(alike)), 3)

    def check(self) -> None:
        """Refuse a gate that would mean nothing.

        Raises:
            DataError: one answer to every query would agree with the teacher.
        """
        for gains_QC, what in zip(self._gains, ("text for every picture", "picture for every text"), strict=True):
            agrees = float((gains_QC / gains_QC.max(axis=1, keepdims=True)).mean(axis=0).max())
            if not agrees < EMPTY:  # or it is not a number
                raise DataError(
                    f"a teacher with which one {what} agrees by {100 * agrees:.0f} %, of {len(gains_QC)} pictures "
                    "without captions",
                    expected="a model that tells these pictures apart",
                    fix="give `data` with captions, or pictures of more kinds",
                )


def _scores(embeds: Embeds) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines (Q, C) of each direction."""
    scores_II = embeds[0].astype(np.float64) @ embeds[1].astype(np.float64).T
    return scores_II, scores_II.T


def _probabilities(logits_QC: NDArray[np.float64]) -> NDArray[np.float64]:
    weights_QC = np.exp(logits_QC - logits_QC.max(axis=1, keepdims=True))
    return weights_QC / weights_QC.sum(axis=1, keepdims=True)
