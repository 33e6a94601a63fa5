"""An index into a Qdrant collection. SQLite stays the truth: points that are missing are written, others removed.

What is there is asked for each time, so that a run that was killed, or a collection that lost points, needs nothing
but the next run; of a row that has its point nothing is sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeAlias

import numpy as np

from edgeclip.progress import task
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.search.database import Database
from edgeclip.search.points import Payload, Points, folders_of, suffix_of
from edgeclip.search.qdrant import address_of, connected
from edgeclip.search.rows import Moment

BATCH = 256
"""Points of one request: 2 MB at E = 512."""
PAGE = 10_000
ROWS = """
SELECT photos.id, path, size, mtime_ns, taken, lower(hex(hash)), width, height{more} FROM photos, vectors
WHERE vectors.id = vector AND {which}
"""
Row: TypeAlias = tuple[int, str, int, int, Moment, str, int, int]
RowWithVector: TypeAlias = tuple[int, str, int, int, Moment, str, int, int, bytes]


@contextmanager
def copier(database: Database, clip: ClipRuntime, url: str) -> Iterator[Callable[[], tuple[int, int]]]:
    """Open a collection, made where there is none, and give what copies an index to it.

    Raises:
        ConfigError: the address is none, or the server doesn't answer.
        DataError: the collection holds vectors of another bundle.
    """
    address, fingerprint = address_of(url, "`to`"), clip.bundle.fingerprint
    with closing(Points(address, connected(address))) as points:
        points.make(clip.embedding_size)
        points.check(clip.embedding_size, fingerprint)
        points.index()
        yield partial(copy, database, points, fingerprint)


def copy(database: Database, points: Points, fingerprint: str) -> tuple[int, int]:
    """Have the collection hold this index's rows, no more and no fewer of it; the caller keeps other processes out.

    Returns:
        How many points were written, and removed.

    Raises:
        EdgeclipError: the collection can't be used, or the index is damaged.
    """
    source = source_of(database)
    said = {"fingerprint": fingerprint, "bundle": database.meta.bundle, "source": source}
    former = points.ids_of(source)
    new = []
    for row in _pages(database):
        id_ = _payload(database, row, said).id
        if id_ in former:
            former.remove(id_)
        else:
            new.append(row[0])
    with task("Copying", len(new), unit="photos") as advance:
        for start in range(0, len(new), BATCH):
            _write(database, points, new[start : start + BATCH], said)
            advance(len(new[start : start + BATCH]))
    gone = sorted(former)  # after the new ones: what was moved is there throughout
    for start in range(0, len(gone), PAGE):
        points.remove(gone[start : start + PAGE])
    return len(new), len(gone)


def source_of(database: Database) -> str:
    """By what an index's points are known; it stays through `reindex`."""
    database.insert("INSERT OR IGNORE INTO meta VALUES ('source', ?)", [(uuid.uuid4().hex,)])
    ((source,),) = database.rows("SELECT value FROM meta WHERE key = 'source'", of=tuple[str])
    return source


def _pages(database: Database) -> Iterator[Row]:
    """All rows, of which few are in memory at once."""
    query, last = ROWS.format(more="", which="photos.id > ? ORDER BY photos.id LIMIT ?"), 0
    while page := database.rows(query, (last, PAGE), of=Row):
        yield from page
        last = page[-1][0]


def _write(database: Database, points: Points, numbers: list[int], said: dict[str, str]) -> None:
    query = ROWS.format(more=", embedding", which=f"photos.id IN ({', '.join('?' * len(numbers))})")
    rows = database.rows(query, tuple(numbers), of=RowWithVector)
    if any(len(row[-1]) != 2 * database.meta.embedding_size for row in rows):
        raise database.damaged("a vector of another size")
    embeds = np.frombuffer(b"".join(row[-1] for row in rows), "<f2").astype(np.float32).reshape(len(rows), -1)
    points.write([_payload(database, row[:-1], said) for row in rows], embeds)


def _payload(database: Database, row: Row, said: dict[str, str]) -> Payload:
    _, name, size, mtime_ns, taken, content, width, height = row
    path = database.path_of(name)
    return Payload(
        path=name,
        size=size,
        mtime_ns=mtime_ns,
        hash=content,
        taken=taken,
        width=width,
        height=height,
        folders=folders_of(path),
        suffix=suffix_of(path),
        **said,
    )
