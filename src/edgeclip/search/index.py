"""An index of pictures: made from folders, searched by words and pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from edgeclip.bulk.path_names import path_to_text
from edgeclip.cpu import processors
from edgeclip.errors import DataError
from edgeclip.files import locked, printable
from edgeclip.inputs import check_path, check_whole, texts_of
from edgeclip.runtime.clip import ClipRuntime, load
from edgeclip.runtime.joined import JoinedModel
from edgeclip.search.adding import Adding
from edgeclip.search.confidence import Confidence
from edgeclip.search.database import Database, check_file, create
from edgeclip.search.duplicates import duplicates
from edgeclip.search.filters import NO_FILTERS, Filters
from edgeclip.search.finding import MOST, Asked, asked_of, find
from edgeclip.search.kept_thumbnails import remove_unused
from edgeclip.search.pruning import is_below, prune, roots_of
from edgeclip.search.queries import Query, unit
from edgeclip.search.reindexing import reindex
from edgeclip.search.rows import Added, Answer, Duplicates, Moment, Photo, Pruned, Status
from edgeclip.search.scan import Scan, bits_path
from edgeclip.search.sqlite_store import PhotoRow, SqliteStore, photo_of


class Index:
    """An index, and the bundle that it was made with. Threads may share one; one process at a time adds to it.

    Attributes:
        path: the SQLite file.
        clip: the bundle.
    """

    def __init__(self, path: Path, clip: ClipRuntime) -> None:
        """Open what is there; see `open`."""
        self.path, self.clip = path, clip
        self._database = Database(path)
        made_with, given = self._database.meta.fingerprint, clip.bundle.fingerprint
        if made_with != given:
            self._database.close()
            name = printable(str(path))
            raise DataError(
                f"{name}, made with the bundle of the fingerprint {made_with}",
                expected=f"{given}, the one given",
                fix=f"use `bundle` {self._database.meta.bundle}, or edgeclip reindex --db {name} --bundle BUNDLE",
            )
        if self._database.meta.embedding_size != clip.embedding_size:
            self._database.close()
            raise self._database.damaged(f"embeddings of {self._database.meta.embedding_size} numbers")
        self._scan = Scan(self._database)
        self._confidence = Confidence(self._database, clip.embedding_size)
        self._store = SqliteStore(self._database, self._scan, self._confidence)

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
        check_file(path)
        clip = _loaded(path, bundle)
        if not path.exists():
            with _locked(path):
                if not path.exists():
                    create(path, _meta(clip, bundle))
        return cls(path, clip)

    @classmethod
    def reindex(
        cls, path: str | Path, bundle: str | Path | ClipRuntime | None = None, *, workers: int | None = None
    ) -> Added:
        """Make an index anew with another bundle; until that is done, and if it fails, the former one stays.

        Args:
            path: the SQLite file.
            bundle: as for `open`.
            workers: as for `add`.

        Raises:
            DataError: as for `open`; or an indexed picture can't be read.
            EdgeclipError, OSError: as for `add`.
        """
        check_path("`path`", path)
        path = Path(path)
        clip = _loaded(path, bundle)
        former = Database(path)
        try:
            with _locked(path):
                meta = _meta(clip, former.meta.bundle if bundle is None else bundle)
                added = reindex(former, clip, meta, workers=_workers(workers))
        finally:
            former.close()
        with cls.open(path, clip) as index:
            index._settle()
        return added

    def add(
        self,
        folders: str | Path | Sequence[str | Path],
        *,
        exclude: str | Sequence[str] = (),
        workers: int | None = None,
        to: str | None = None,
    ) -> Added:
        """Index the pictures below folders. Nothing is removed; interrupted at any moment, the next run goes on.

        Args:
            folders: folders, or pictures. An indexed one that isn't there now is among the `unreadable` of what is
                returned.
            exclude: patterns (`fnmatch`) of the names, or of the paths below the folder, of files and folders.
            workers: threads that decode and encode; as many as processors by default.
            to: a Qdrant collection that is to have the same rows then, see `Collection.open`; made where there is none.

        Raises:
            DataError: there is nothing at one, nor was; or the collection holds other vectors.
            ConfigError: another process is adding; or the collection's server can't be used.
            OSError: the disk is full, and such.
            EdgeclipError: the index is damaged, or the bundle can't be used.
        """
        roots = [self._root(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
        exclude = texts_of(exclude, "`exclude`")
        with _locked(self.path), self._copier(to) as copy:
            self._database.insert("INSERT OR IGNORE INTO roots VALUES (?)", [(path_to_text(root),) for root in roots])
            added = Adding(self._database, self.clip, workers=_workers(workers)).run(roots, exclude)
            self._settle()
            added.written, added.withdrawn = copy()
        return added

    def _copier(self, to: str | None) -> AbstractContextManager[Callable[[], tuple[int, int]]]:
        """What copies to a collection, which is looked at before hours of work."""
        if to is None:
            return nullcontext(lambda: (0, 0))
        from edgeclip.search.copying import copier  # extra `scale`

        return copier(self._database, self.clip, to)

    def _root(self, folder: str | Path) -> str:
        """A folder's real place; one that isn't there must be known, and may be a disk that is away."""
        check_path("`folders`", folder)
        root = os.path.realpath(folder)
        if not os.path.lexists(root) and not any(is_below(root, known) for known in roots_of(self._database)):
            raise DataError(
                f"nothing at {printable(str(folder))}", expected="a folder or a picture", fix="give the path of one"
            )
        return root

    def _settle(self) -> None:
        """Bring up to date what is computed from the vectors."""
        self._scan.nearest(np.zeros(self.clip.embedding_size, np.float32), 1, is_picture=True)
        (contents,) = self._database.rows("SELECT count(*) FROM vectors")[0]
        self._confidence.calibrate(self.clip, contents, self._scan.sample, self._scan.best)

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        filters: Filters = NO_FILTERS,
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
        asked = asked_of(self.clip, query, k=k, filters=filters, collapse=collapse, raw_prompt=raw_prompt)
        return find(self._store, asked)

    def similar(self, path: str | Path, *, k: int = 10, filters: Filters = NO_FILTERS) -> Answer:
        """The pictures most like an indexed one, which is not read again.

        Raises:
            DataError: it is not in the index.
        """
        check_path("`path`", path)
        check_whole("`k`", k, 1, MOST)
        real = os.path.realpath(path)
        rows = self._database.rows("SELECT vector FROM photos WHERE path = ?", (path_to_text(real),), of=tuple[int])
        if not rows:
            raise DataError(
                f"{printable(real)}, which is not in the index", expected="an indexed picture", fix="index its folder"
            )
        (embeds_E,) = self._scan.vector(rows[0][0])
        asked = Asked(query=unit(embeds_E), k=k, filters=filters, left_out=frozenset((real,)), is_picture=True)
        return find(self._store, asked)

    def photo(self, number: int) -> Photo | None:
        """The picture of a row's number, None where there is none by now."""
        rows = self._database.rows(f"{PHOTO} WHERE photos.id = ?", (number,), of=PhotoRow)
        return photo_of(self._database, rows[0]) if rows else None

    def prune(self, folders: Sequence[str | Path] = ()) -> Pruned:
        """Remove the rows of files that are gone, and the thumbnails that a server has kept of them.

        Args:
            folders: rows below these go even where an indexed folder is missing, empty or can't be read, which may be
                a disk that is away and otherwise keeps its rows.

        Raises:
            ConfigError: another process is adding.
            EdgeclipError, OSError: the index can't be written.
        """
        with _locked(self.path):
            pruned = prune(self._database, [str(folder) for folder in folders])
            if pruned.removed:
                self._scan.refresh()
            remove_unused(self._database)
        return pruned

    def dupes(self) -> tuple[Duplicates, ...]:
        """Groups of near-duplicates, the largest first. Twice as many pictures take four times as long.

        Raises:
            DataError: the index is damaged, or was made anew meanwhile.
        """
        return duplicates(self._database, self._scan)

    def status(self) -> Status:
        """What is in the index.

        Raises:
            DataError: the index is damaged, or was made anew with another bundle.
        """
        self._database.follow()
        ((photos, first, last),) = self._database.rows(EXTENT, of=tuple[int, Moment | None, Moment | None])
        broken = self._database.rows("SELECT path, reason FROM broken ORDER BY path", of=tuple[str, str])
        names = (self.path.name, f"{self.path.name}-wal", bits_path(self.path).name)
        files = (self.path.with_name(name) for name in names)
        return Status(
            photos=photos,
            contents=self._database.rows("SELECT count(*) FROM vectors")[0][0],
            broken={self._database.path_of(path): reason for path, reason in broken},
            roots=tuple(sorted(roots_of(self._database))),
            bundle=self._database.meta.bundle,
            fingerprint=self.clip.bundle.fingerprint,
            embedding_size=self.clip.embedding_size,
            bytes=sum(file.stat().st_size for file in files if file.exists()),
            first=first,
            last=last,
        )

    def close(self) -> None:
        """Give the file back; the bundle stays open."""
        self._database.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


EXTENT = "SELECT count(*), min(taken), max(taken) FROM photos"
PHOTO = "SELECT photos.id, path, taken, width, height FROM photos JOIN vectors ON vectors.id = vector"


def _workers(given: int | None) -> int:
    return processors() if given is None else given


def _loaded(path: Path, bundle: str | Path | ClipRuntime | None) -> ClipRuntime:
    """The bundle that is given, or that an index was made with."""
    if isinstance(bundle, ClipRuntime):
        return bundle
    if bundle is None:
        database = Database(path)
        bundle = database.meta.bundle
        database.close()
    return load(bundle, threads=1)


def _meta(clip: ClipRuntime, bundle: str | Path | ClipRuntime | None) -> dict[str, Any]:
    """What a new index says of the bundle: where it is, so that a search finds it again, and which it is."""
    source = clip.bundle.folder if isinstance(bundle, ClipRuntime) or bundle is None else bundle
    if isinstance(clip.bundle, JoinedModel):  # which names two places
        source = clip.bundle.folder
    if Path(source).exists():
        source = os.path.realpath(source)
    return {
        "bundle": str(source),
        "fingerprint": clip.bundle.fingerprint,
        "embedding_size": clip.embedding_size,
    }


def _locked(path: Path) -> AbstractContextManager[None]:
    name = printable(str(path))
    return locked(path, f"{name}, to which another run writes", fix="wait for it, or give `db` another")
