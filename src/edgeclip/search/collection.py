"""A search over all indexes that were copied into a Qdrant collection, from any machine.

Shape legend: K contents, E embedding size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclip.runtime.clip import ClipRuntime, load
from edgeclip.search.filters import NO_FILTERS, Filters
from edgeclip.search.finding import Asked, asked_of, find
from edgeclip.search.points import Points, path_of
from edgeclip.search.qdrant import address_of, connected
from edgeclip.search.queries import Query
from edgeclip.search.rows import Answer, Photo

FEWEST = 100
"""Points that are asked for at least: copies and near-duplicates become one result."""


class Collection:
    """A collection, and the bundle that its vectors were made with. Threads may share one.

    Attributes:
        clip: the bundle.
    """

    def __init__(self, points: Points, clip: ClipRuntime) -> None:
        """See `open`."""
        points.check(clip.embedding_size, clip.bundle.fingerprint)
        self.clip, self._points = clip, points

    @classmethod
    def open(cls, url: str, bundle: str | Path | ClipRuntime | None = None) -> Collection:
        """Open a collection that `Index.add` has written to.

        Args:
            url: qdrant://host:port/collection, or qdrants:// for TLS; an API key is taken from QDRANT_API_KEY, or
                from the file that QDRANT_API_KEY_FILE names.
            bundle: as for `Index.open`; None for the one that the points name.

        Raises:
            DataError: there is no such collection, it is empty, or it was made with another bundle.
            ConfigError: the server doesn't answer, or refuses the API key; or the address is none.
            EdgeclipError: the bundle can't be loaded.
        """
        address = address_of(url, "`db`")
        points = Points(address, connected(address))
        try:
            made_with = points.any().bundle
            clip = bundle if isinstance(bundle, ClipRuntime) else load(bundle or made_with, threads=1)
            return cls(points, clip)
        except BaseException:
            points.close()
            raise

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        filters: Filters = NO_FILTERS,
        collapse: bool = True,
        raw_prompt: bool = False,
    ) -> Answer:
        """As `Index.search`; whether there is nothing isn't known, so that `confidence` is None.

        Raises:
            EdgeclipError: as for `Index.search`; or the server can't be used.
        """
        return find(self, asked_of(self.clip, query, k=k, filters=filters, collapse=collapse, raw_prompt=raw_prompt))

    def nearest(self, asked: Asked) -> tuple[list[list[Photo]], NDArray[np.float32]]:
        """See `finding.Store`."""
        found, embeds_KE = self._points.nearest(asked.query, asked.filters, max(asked.wanted, FEWEST))
        files: dict[str, list[Photo]] = {}
        rows = []
        for row, (id_, payload) in enumerate(found):
            path = path_of(payload)
            if path in asked.left_out:
                continue
            if payload.hash not in files:
                rows.append(row)
            photo = Photo(id=id_, path=path, taken=payload.taken, width=payload.width, height=payload.height)
            files.setdefault(payload.hash, []).append(photo)
        return [sorted(photos, key=lambda photo: photo.path) for photos in files.values()], embeds_KE[rows]

    def confidence(self, asked: Asked, best: float) -> float | None:
        """See `finding.Store`: what texts without a picture come to was found out for each index alone."""
        return None

    def close(self) -> None:
        """End the connection; the bundle stays open."""
        self._points.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
