"""The SQLite file that an index is, and what is said where it can't be used.

What is read back is compared with what it should be: another program may have written to the file, or a disk failed.

`photos` has a row for each file, `vectors` one for each content: a copy or a move costs no encoding. A vector's id is
never used again and its content never changes, so that whatever was computed from it stays right.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgeclip.bulk.path_names import path_from_text
from edgeclip.errors import ConfigError, DataError, ReplacedError
from edgeclip.files import part_of, printable

APPLICATION, SCHEMA = 0x45434C49, 1
"""Of SQLite's header: "ECLI", and the version of the tables below."""
PAGE_BYTES = 16_384
"""13 rows of E = 512 in float16; in SQLite's usual 4,096 there is room for 3, and a quarter is lost."""
PRAGMAS = {"page_size": PAGE_BYTES, "application_id": APPLICATION, "user_version": SCHEMA}
WAIT_SECONDS = 10
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, width INTEGER NOT NULL, height INTEGER NOT NULL,
    embedding BLOB NOT NULL
);
CREATE TABLE photos (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    taken REAL NOT NULL, vector INTEGER NOT NULL REFERENCES vectors (id)
);
CREATE INDEX photos_by_vector ON photos (vector);
CREATE TABLE calibration (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE broken (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, reason TEXT NOT NULL
) WITHOUT ROWID;
"""

DROP_UNUSED = "DELETE FROM vectors WHERE id NOT IN (SELECT vector FROM photos)"


COLLECTION = re.compile("qdrants?:/")


def is_collection(place: str | Path) -> bool:
    """Whether an index is said to be in a collection of a server, see `qdrant.address_of`."""
    return COLLECTION.match(str(place)) is not None


def check_file(path: Path) -> None:
    """Refuse a collection where an index's file is needed.

    Raises:
        ConfigError: it is one.
    """
    if is_collection(path):
        raise ConfigError(
            "a Qdrant collection for `db`",
            expected="the SQLite file that was copied there: of a collection only searches are made",
            fix="give `db` that file, or use edgeclip search",
        )


class Meta(msgspec.Struct, frozen=True):
    """What an index says of itself: the bundle and which it is, E, and a name of its own."""

    bundle: str
    fingerprint: str
    embedding_size: Annotated[int, msgspec.Meta(ge=1, le=65_536)]
    uuid: str


class Database:
    """A connection that threads may share; each statement runs alone.

    Attributes:
        meta: what the index says of itself, when it was opened or last followed.
    """

    def __init__(self, path: Path) -> None:
        """Open an index that is there.

        Raises:
            DataError: there is none, or it is damaged, of a newer version, or another program's.
        """
        check_file(path)
        self.path = path
        self._lock = threading.RLock()
        _check_file(path)
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._check()
                self._connection.execute("PRAGMA journal_mode = WAL")
                self.meta = self._meta()
            except BaseException:
                self._connection.close()
                raise

    def _check(self) -> None:
        names = ("application_id", "user_version")
        application, schema = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        if application != APPLICATION:
            raise _unusable(self.path, "a database of another program")
        if schema != SCHEMA:
            fix = "update edgeclip" if schema > SCHEMA else "make it anew with edgeclip reindex"
            raise DataError(
                f"{printable(str(self.path))}, an index of schema {schema}", expected=f"schema {SCHEMA}", fix=fix
            )

    def _meta(self) -> Meta:
        try:
            return msgspec.convert(dict(self._connection.execute("SELECT key, value FROM meta")), Meta)
        except ValueError as error:
            raise self.damaged(str(error)) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Statements that are carried out whole or not at all, on the disk when the block ends.

        Raises:
            DataError: the file is damaged.
            OSError: the disk is full or can't be written to.
            ConfigError: another process writes for longer than `WAIT_SECONDS`.
        """
        with self._lock, self._explained(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection

    def rows(self, query: str, values: tuple[Any, ...] = (), *, of: Any = None) -> list[Any]:
        """The rows of a query, each of the type `of`, such as tuple[int, str], where that is given.

        Raises:
            DataError: the file is damaged, or a row is of another type.
        """
        with self._lock, self._explained():
            found = self._connection.execute(query, values).fetchall()
        try:
            return found if of is None else msgspec.convert(found, list[of])
        except ValueError as error:
            raise self.damaged(str(error)) from error

    def path_of(self, text: str) -> str:
        """The path of a row.

        Raises:
            DataError: no file can have it.
        """
        path = path_from_text(text)
        if "\0" in path:
            raise self.damaged("a path with a zero byte")
        return path

    def damaged(self, trouble: str) -> DataError:
        """What is said where a row is not what it should be."""
        return DataError(
            f"{printable(str(self.path))}, which is damaged ({trouble})",
            expected="rows as `edgeclip index` writes them",
            fix="restore it from a copy, or move it away and index again",
        )

    def insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Carry out a statement for several rows, see `transaction`."""
        with self.transaction() as connection:
            connection.executemany(statement, rows)

    def follow(self) -> None:
        """Take note of whether the index was made anew meanwhile.

        Raises:
            ReplacedError: it was, with another bundle.
            DataError: the file is damaged.
        """
        with self._lock, self._explained():
            meta = self._meta()
        if meta.fingerprint != self.meta.fingerprint:
            raise ReplacedError(
                f"{printable(str(self.path))}, which was made anew with another bundle ({meta.fingerprint})",
                expected=f"the bundle that it was opened with ({self.meta.fingerprint})",
                fix="open it again",
            )
        self.meta = meta

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self.path):
            yield


def create(path: Path, meta: dict[str, Any]) -> None:
    """Make an empty index, whole or not at all, in place of what is there; the caller keeps other processes out.

    Raises:
        OSError: the place can't be written to.
    """
    part = part_of(path)
    part.unlink(missing_ok=True)
    try:
        with explained(path), closing(sqlite3.connect(part, isolation_level=None)) as connection:
            for statement in (*(f"PRAGMA {name} = {value}" for name, value in PRAGMAS.items()), *TABLES.split(";")):
                connection.execute(statement)
            rows = {**meta, "uuid": uuid.uuid4().hex}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    name = printable(str(path))
    if path.is_dir():
        raise DataError(f"{name}, a folder", expected="an index, which is a file", fix=f"give `db` {name}/photos.db")
    if path.exists() and not path.is_file():
        raise DataError(
            f"{name}, a device, pipe or socket", expected="an index, which is a file", fix="give `db` photos.db"
        )
    if not path.exists():
        raise DataError(
            f"no index at {name}",
            expected="one made by `edgeclip index`",
            fix=f"make one with edgeclip index FOLDER --db {name} --bundle BUNDLE",
        )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say in our words what SQLite refuses; what the operating system refuses is an OSError, as it is elsewhere."""
    try:
        yield
    except sqlite3.OperationalError as error:
        message, name = str(error), str(path)
        if "full" in message:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name) from error
        if "unable to open" in message or "readonly" in message:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), name) from error
        if "locked" in message:
            raise ConfigError(
                f"{printable(name)}, to which another process writes", expected="one at a time", fix="wait for it"
            ) from error
        if "disk I/O" in message:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name) from error
        raise _unusable(path, message) from error
    except sqlite3.DatabaseError as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, trouble: str) -> DataError:
    return DataError(
        f"{printable(str(path))} ({trouble})",
        expected="an index made by `edgeclip index`",
        fix="move it away and index again, or give `db` another",
    )
