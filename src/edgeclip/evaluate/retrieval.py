"""Recall at k of image-text retrieval, with ties counted against the model and bootstrap intervals.

Shape legend: I images, C captions, Q queries, K the numbers in `KS`, E embedding size, R bootstrap resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclip.results import Interval, Recalls

KS = (1, 5, 10)
RESAMPLES = 2000
BLOCK = 256
TIE = 1e-7
"""Scores nearer than the rounding of float32 embeddings are a tie."""


def ranks(
    image_embeds: NDArray[np.float32], text_embeds: NDArray[np.float32], image_of_caption: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many wrong candidates score at least as high as the right one; 0 is a hit at 1.

    A tie counts against the model, and so does a similarity that is not a number.

    Args:
        image_embeds: (I, E) L2-normalised.
        text_embeds: (C, E) L2-normalised.
        image_of_caption: (C,) the image each caption belongs to; every image has at least one.

    Returns:
        (I,) rank of each image's best own caption among the captions of other images, and
        (C,) rank of each caption's image among the other images.
    """
    I, C = len(image_embeds), len(text_embeds)
    image_ranks, caption_ranks = np.empty(I, np.int64), np.zeros(C, np.int64)
    images, texts = image_embeds.astype(np.float64), text_embeds.astype(np.float64)
    own_score_C = np.einsum("ce,ce->c", texts, images[image_of_caption])
    for start in range(0, I, BLOCK):
        block = np.arange(start, min(start + BLOCK, I))
        scores_BC = images[block] @ texts.T
        own_BC = image_of_caption[None, :] == block[:, None]
        best_B = np.where(own_BC, own_score_C[None, :], -np.inf).max(axis=1)
        image_ranks[block] = (~(scores_BC < best_B[:, None] - TIE) & ~own_BC).sum(axis=1)
        caption_ranks += (~(scores_BC < own_score_C[None, :] - TIE) & ~own_BC).sum(axis=0)
    return image_ranks, caption_ranks


def recalls(ranks_Q: NDArray[np.int64], cluster_Q: NDArray[np.int64]) -> Recalls:
    """Recall at 1, 5 and 10 in per cent, see `mean_found`; `ranks_Q` as `ranks` gives them."""
    return mean_found(np.array([ranks_Q < k for k in KS]), cluster_Q)


def mean_found(found_KQ: NDArray[Any], cluster_Q: NDArray[np.int64]) -> Recalls:
    """The mean of what queries find in per cent, with 95 % percentile bootstrap intervals.

    Images are resampled, each with all of its queries, since captions of one image are not independent.

    Args:
        found_KQ: by k of `KS`, how much of what it should find each query finds, 0 to 1.
        cluster_Q: the image of each query, 0 .. I-1, every image present.
    """
    I = int(cluster_Q.max()) + 1
    queries_I = np.bincount(cluster_Q, minlength=I).astype(np.float64)
    draws_RI = np.random.default_rng(0).integers(I, size=(RESAMPLES, I))
    totals_R = queries_I[draws_RI].sum(axis=1)
    intervals = {}
    for k, found_Q in zip(KS, found_KQ, strict=True):
        found_I = np.bincount(cluster_Q, weights=found_Q, minlength=I)
        low, high = np.percentile(100 * found_I[draws_RI].sum(axis=1) / totals_R, (2.5, 97.5))
        value = 100 * float(found_I.sum()) / len(cluster_Q)
        intervals[f"r{k}"] = Interval(value=round(value, 3), low=round(float(low), 3), high=round(float(high), 3))
    return Recalls(**intervals)


def retrieval(
    image_embeds: NDArray[np.float32], text_embeds: NDArray[np.float32], image_of_caption: NDArray[np.int64]
) -> tuple[Recalls, Recalls]:
    """Image-to-text and text-to-image recalls; arguments as for `ranks`.

    With one caption per image this is the paper's protocol; with all captions, the standard one, where any caption of
    an image counts as right.
    """
    image_ranks, caption_ranks = ranks(image_embeds, text_embeds, image_of_caption)
    return recalls(image_ranks, np.arange(len(image_embeds))), recalls(caption_ranks, image_of_caption)
