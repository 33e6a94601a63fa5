"""From a query to the rows that are shown, wherever pictures and their vectors are kept.

Shape legend: K candidates, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.inputs import check_whole
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.search.filters import Filters
from edgeclip.search.near_duplicates import collapsed
from edgeclip.search.queries import Query, embed, terms_of, unit
from edgeclip.search.rows import Answer, Photo, Result

MOST = 10_000
"""Results of one search."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A query, as it is looked for.

    Attributes:
        query: unit vector (E,).
        k: how many results.
        filters: which pictures may be found.
        left_out: paths of pictures that are part of the query.
        collapse: whether a picture stands for its near-duplicates.
        is_picture: whether it consists of pictures alone.
        is_text: whether it is one text, of which can be told whether there is a match.
    """

    query: NDArray[np.float32]
    k: int
    filters: Filters
    left_out: frozenset[str]
    collapse: bool = True
    is_picture: bool = False
    is_text: bool = False

    @property
    def wanted(self) -> int:
        """How many contents to look for, of which some are left out or alike."""
        return 2 * (self.k + len(self.left_out))


class Store(Protocol):
    """Where pictures and their vectors are kept."""

    def nearest(self, asked: Asked) -> tuple[list[list[Photo]], NDArray[np.float32]]:
        """The files that may be shown, of each content that has one, and the contents' vectors (K, E), best first."""
        ...

    def confidence(self, asked: Asked, best: float) -> float | None:
        """See `Answer.confidence`; `best` is the best result's cosine."""
        ...


def asked_of(
    clip: ClipRuntime, query: Query, *, k: int, filters: Filters, collapse: bool = True, raw_prompt: bool = False
) -> Asked:
    """What a caller asks, embedded; arguments and errors are those of `Index.search`."""
    check_whole("`k`", k, 1, MOST)
    terms = terms_of(query)
    weights = np.array([term.weight for term in terms], np.float32)
    return Asked(
        query=unit(weights @ np.stack(embed(clip, terms, raw_prompt=raw_prompt))),
        k=k,
        filters=filters,
        left_out=frozenset(os.path.realpath(term.what) for term in terms if isinstance(term.what, Path)),
        collapse=collapse,
        is_picture=not any(term.is_text for term in terms),
        is_text=len(terms) == 1 and terms[0].is_text and terms[0].weight > 0,
    )


def find(store: Store, asked: Asked) -> Answer:
    """The nearest pictures, and whether they are any good."""
    files, embeds_KE = store.nearest(asked)
    results = _results(files, embeds_KE, embeds_KE @ asked.query, asked)
    confidence = store.confidence(asked, results[0].score) if asked.is_text and results else None
    is_match = bool(results) and (confidence is None or confidence >= 0)
    return Answer(results=results, is_match=is_match, confidence=confidence)


def _results(
    files: Sequence[list[Photo]], embeds_KE: NDArray[np.float32], scores_K: NDArray[np.float32], asked: Asked
) -> tuple[Result, ...]:
    if asked.collapse:
        groups = [
            ([photo for row in rows for photo in files[row]], rows[0]) for rows in collapsed(embeds_KE, most=asked.k)
        ]
    else:
        groups = [([photo], row) for row, photos in enumerate(files) for photo in photos]
    return tuple(
        Result(
            **msgspec.structs.asdict(photos[0]),
            score=float(scores_K[row]),
            alike=tuple(photo.path for photo in photos[1:]),
        )
        for photos, row in groups[: asked.k]
    )
