"""An index of pictures: made from folders, searched by words and pictures.

Shape legend: K candidates, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclip.bulk.path_names import path_from_text, path_to_text
from edgeclip.cpu import processors
from edgeclip.errors import DataError
from edgeclip.files import locked, printable
from edgeclip.inputs import check_path, check_whole
from edgeclip.runtime.clip import ClipRuntime, load
from edgeclip.search.adding import Adding
from edgeclip.search.database import Database, create
from edgeclip.search.filters import Filters, condition
from edgeclip.search.near_duplicates import collapsed
from edgeclip.search.queries import Query, embed, terms_of, unit
from edgeclip.search.rows import Added, Answer, Result
from edgeclip.search.scan import IN_ONE_QUERY, Scan

MOST = 10_000
"""Results of one search."""


class Index:
    """An index, and the bundle that it was made with. Threads may share one; one process at a time adds to it."""

    def __init__(self, path: Path, clip: ClipRuntime) -> None:
        """Open what is there; see `open`."""
        self.path, self.clip = path, clip
        self._database = Database(path)
        made_with, given = self._database.meta["fingerprint"], clip.bundle.manifest.fingerprint
        if made_with != given:
            self._database.close()
            name = printable(str(path))
            raise DataError(
                f"{name}, made with the bundle of the fingerprint {made_with}",
                expected=f"{given}, the one given",
                fix=f"use `bundle` {self._database.meta['bundle']}, or edgeclip reindex --db {name} --bundle BUNDLE",
            )
        self._scan = Scan(self._database)

    @classmethod
    def open(cls, path: str | Path, bundle: str | Path | ClipRuntime | None = None) -> Index:
        """Open an index, or begin one.

        Args:
            path: the SQLite file. Where there is none and a bundle is given, it is made.
            bundle: what to embed with: a folder, a hub id, `builtin:tabletop`, or one that is loaded, whose threads are
                kept; None for the one that the index was made with.

        Raises:
            DataError: the file is no index, damaged, of a newer version, or made with another bundle.
            EdgeclipError: the bundle can't be loaded.
            OSError: the file can't be read or made.
        """
        check_path("`path`", path)
        path = Path(path)
        if bundle is None:
            database = Database(path)
            bundle = str(database.meta["bundle"])
            database.close()
        clip = bundle if isinstance(bundle, ClipRuntime) else load(bundle, threads=1)
        if not path.exists():
            with _locked(path):
                if not path.exists():
                    create(path, _meta(clip, bundle))
        return cls(path, clip)

    def add(
        self, folders: str | Path | Sequence[str | Path], *, exclude: Sequence[str] = (), workers: int | None = None
    ) -> Added:
        """Index the pictures below folders. Nothing is removed; interrupted at any moment, the next run goes on.

        Args:
            folders: folders, or pictures.
            exclude: patterns (`fnmatch`) of the names, or of the paths below the folder, of files and folders.
            workers: threads that decode and encode; as many as processors by default.

        Raises:
            DataError: there is nothing at one.
            ConfigError: another process is adding.
            OSError: the disk is full, and such.
        """
        given = [folders] if isinstance(folders, str | Path) else list(folders)
        for folder in given:
            check_path("`folders`", folder)
        with _locked(self.path):
            adding = Adding(self._database, self.clip, workers=processors() if workers is None else workers)
            return adding.run([str(folder) for folder in given], exclude)

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        filters: Filters | None = None,
        collapse: bool = True,
        raw_prompt: bool = False,
    ) -> Answer:
        """The pictures nearest to a text, a picture, or a weighted list of both. Files that are asked by are left out.

        Args:
            query: see `queries.Query`; negative weights take away.
            k: how many results.
            filters: which pictures may be found.
            collapse: let a picture stand for its near-duplicates.
            raw_prompt: embed short nouns as they are, without templates.

        Raises:
            EdgeclipError: the query can't be used, or a picture in it can't be decoded.
        """
        check_whole("`k`", k, 1, MOST)
        terms = terms_of(query)
        weights = np.array([term.weight for term in terms], np.float32)
        query_E = unit(weights @ np.stack(embed(self.clip, terms, raw_prompt=raw_prompt)))
        asked = {os.path.realpath(term.what) for term in terms if isinstance(term.what, Path)}
        return self._nearest(query_E, k, filters or Filters(), asked, collapse=collapse)

    def similar(self, path: str | Path, *, k: int = 10, filters: Filters | None = None) -> Answer:
        """The pictures most like an indexed one, which is not read again.

        Raises:
            DataError: it is not in the index.
        """
        check_path("`path`", path)
        real = os.path.realpath(path)
        row = self._database.rows(
            "SELECT embedding FROM vectors, photos WHERE path = ? AND vectors.id = vector", (path_to_text(real),)
        )
        if not row:
            raise DataError(
                f"{printable(real)}, which is not in the index", expected="an indexed picture", fix="index its folder"
            )
        query_E = np.frombuffer(row[0][0], "<f2").astype(np.float32)
        return self._nearest(unit(query_E), k, filters or Filters(), {real}, collapse=True)

    def _nearest(
        self, query_E: NDArray[np.float32], k: int, filters: Filters, asked: set[str], *, collapse: bool
    ) -> Answer:
        sql, values = condition(filters)
        among = None
        if sql:
            among = {vector for (vector,) in self._database.rows(f"SELECT vector FROM photos WHERE {sql}", values)}  # noqa: S608
        centre_E = np.zeros_like(query_E)
        ids_K, embeds_KE = self._scan.nearest(query_E, centre_E, 2 * k, among)
        photos = self._photos(ids_K.tolist(), sql, values, asked)
        is_there = np.array([int(id_) in photos for id_ in ids_K], bool)
        ids_K, embeds_KE = ids_K[is_there], embeds_KE[is_there]
        scores_K = embeds_KE @ query_E
        groups = collapsed(embeds_KE, most=k) if collapse else [[row] for row in range(min(k, len(ids_K)))]
        results = []
        for group in groups:
            files = [photo for row in group for photo in photos[int(ids_K[row])]]
            shown = files[:1] if collapse else files
            for photo in shown:
                alike = tuple(other["path"] for other in files[1:]) if collapse else ()
                results.append(Result(**photo, score=float(scores_K[group[0]]), alike=alike))
        return Answer(results=tuple(results[:k]), is_match=bool(results), confidence=0.0)

    def _photos(
        self, vectors: list[int], sql: str, values: tuple[Any, ...], left_out: set[str]
    ) -> dict[int, list[dict[str, Any]]]:
        """The files of contents, by the content's id."""
        found: dict[int, list[dict[str, Any]]] = {}
        for start in range(0, len(vectors), IN_ONE_QUERY):
            part = vectors[start : start + IN_ONE_QUERY]
            query = PHOTOS.format(places=", ".join("?" * len(part))) + (f" AND ({sql})" if sql else "")
            for vector, id_, path, taken, width, height in self._database.rows(query, (*part, *values)):
                real = path_from_text(path)
                if real not in left_out:
                    photo = {"id": id_, "path": real, "taken": taken, "width": width, "height": height}
                    found.setdefault(vector, []).append(photo)
        return found

    def close(self) -> None:
        """Give the file back; the bundle stays open."""
        self._database.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


PHOTOS = """
SELECT vector, photos.id, path, taken, width, height FROM photos, vectors
WHERE vectors.id = vector AND vector IN ({places})
"""


def _meta(clip: ClipRuntime, bundle: str | Path | ClipRuntime) -> dict[str, Any]:
    """What a new index says of the bundle: where it is, so that a search finds it again, and which it is."""
    source = clip.bundle.folder if isinstance(bundle, ClipRuntime) else bundle
    if Path(source).exists():
        source = os.path.realpath(source)
    return {
        "bundle": str(source),
        "fingerprint": clip.bundle.manifest.fingerprint,
        "embedding_size": clip.embedding_size,
    }


def _locked(path: Path) -> Any:
    name = printable(str(path))
    return locked(path, f"{name}, to which another run writes", fix="wait for it, or give `db` another")
