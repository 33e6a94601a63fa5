"""Pictures and vectors of an index, as a search looks for them: files from SQLite, the nearest from the scan.

Shape legend: K candidates, E embedding size.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeclip.search.confidence import Confidence
from edgeclip.search.database import Database
from edgeclip.search.filters import condition
from edgeclip.search.finding import Asked
from edgeclip.search.rows import Moment, Photo
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


class SqliteStore:
    """A `finding.Store`; threads may share one."""

    def __init__(self, database: Database, scan: Scan, confidence: Confidence) -> None:
        self._database, self._scan, self._confidence = database, scan, confidence

    def nearest(self, asked: Asked) -> tuple[list[list[Photo]], NDArray[np.float32]]:
        """See `finding.Store`."""
        sql, values = condition(asked.filters)
        among = None
        if sql:
            allowed = f"SELECT vector FROM photos WHERE {sql}"  # noqa: S608
            among = {vector for (vector,) in self._database.rows(allowed, values, of=tuple[int])}
        ids_K, embeds_KE = self._scan.nearest(asked.query, asked.wanted, among, is_picture=asked.is_picture)
        files = self._files(ids_K.tolist(), sql, values, asked.left_out)
        shown_K = np.array([id_ in files for id_ in ids_K.tolist()], bool)
        return [files[id_] for id_ in ids_K[shown_K].tolist()], embeds_KE[shown_K]

    def confidence(self, asked: Asked, best: float) -> float | None:
        """See `finding.Store`."""
        return self._confidence.of(asked.query, best)

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
