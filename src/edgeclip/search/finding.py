"""From a query's vector to the rows that are shown.

Shape legend: K candidates, E embedding size.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.search.confidence import Confidence
from edgeclip.search.database import Database
from edgeclip.search.filters import Filters, condition
from edgeclip.search.near_duplicates import collapsed
from edgeclip.search.rows import Answer, Moment, Photo, Result
from edgeclip.search.scan import IN_ONE_QUERY, Scan

PHOTOS = """
SELECT vector, photos.id, path, taken, width, height FROM photos, vectors
WHERE vectors.id = vector AND vector IN ({places})
"""

PhotoRow: TypeAlias = tuple[int, str, Moment, int, int]
"""A row's number, path, date, width and height."""
FoundRow: TypeAlias = tuple[int, int, str, Moment, int, int]
"""The same after its vector's number."""


def photo_of(database: Database, row: PhotoRow) -> Photo:
    """What a row tells."""
    id_, name, taken, width, height = row
    return Photo(id=id_, path=database.path_of(name), taken=taken, width=width, height=height)


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


class Finder:
    """Finds in a database; threads may share one."""

    def __init__(self, database: Database, scan: Scan, confidence: Confidence) -> None:
        self._database, self._scan, self._confidence = database, scan, confidence

    def find(self, asked: Asked) -> Answer:
        """The nearest pictures, and whether they are any good."""
        sql, values = condition(asked.filters)
        among = None
        if sql:
            allowed = f"SELECT vector FROM photos WHERE {sql}"  # noqa: S608
            among = {vector for (vector,) in self._database.rows(allowed, values, of=tuple[int])}
        wanted = 2 * (asked.k + len(asked.left_out))
        ids_K, embeds_KE = self._scan.nearest(asked.query, wanted, among, is_picture=asked.is_picture)
        files = self._files(ids_K.tolist(), sql, values, asked.left_out)
        shown_K = np.array([id_ in files for id_ in ids_K.tolist()], bool)
        ids_K, embeds_KE = ids_K[shown_K], embeds_KE[shown_K]
        scores_K = embeds_KE @ asked.query
        results = self._results([files[id_] for id_ in ids_K.tolist()], embeds_KE, scores_K, asked)
        confidence = None
        if asked.is_text and results:
            confidence = self._confidence.of(asked.query, results[0].score)
        is_match = bool(results) and (confidence is None or confidence >= 0)
        return Answer(results=results, is_match=is_match, confidence=confidence)

    def _results(
        self, files: list[list[Photo]], embeds_KE: NDArray[np.float32], scores_K: NDArray[np.float32], asked: Asked
    ) -> tuple[Result, ...]:
        if asked.collapse:
            groups = [
                ([photo for row in rows for photo in files[row]], rows[0])
                for rows in collapsed(embeds_KE, most=asked.k)
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

    def _files(
        self, vectors: list[int], sql: str, values: tuple[Any, ...], left_out: frozenset[str]
    ) -> dict[int, list[Photo]]:
        """The files of contents that may be shown, by the content's id."""
        found: dict[int, list[Photo]] = {}
        for start in range(0, len(vectors), IN_ONE_QUERY):
            part = vectors[start : start + IN_ONE_QUERY]
            query = PHOTOS.format(places=", ".join("?" * len(part))) + (f" AND ({sql})" if sql else "")
            for vector, *row in self._database.rows(query, (*part, *values), of=FoundRow):
                photo = photo_of(self._database, tuple(row))
                if photo.path not in left_out:
                    found.setdefault(vector, []).append(photo)
        return found
