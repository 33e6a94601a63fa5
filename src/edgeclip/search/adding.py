"""Folders into an index: what is new or has changed is encoded, everything else is recognised.

A file whose size and date are those of its row is taken to be the same; else its content decides, by its SHA-256.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.bulk.file_state import FileState, hashed, state_of
from edgeclip.bulk.path_names import path_from_text, path_to_text
from edgeclip.errors import ImageError, MissingExtraError
from edgeclip.files import printable
from edgeclip.image import Crop, crop_and_size
from edgeclip.image.decode import MAX_FILE_BYTES
from edgeclip.progress import task
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.stream import Flush, in_groups, in_order, threads
from edgeclip.search.database import DROP_UNUSED, Database
from edgeclip.search.rows import Added
from edgeclip.search.taken import taken_of
from edgeclip.search.walk import Walk, is_gone

logger = logging.getLogger(__name__)

TOO_LARGE = b""
"""In place of the hash of a file that can't be a picture anyway."""
BATCH = 32
"""Pictures that are committed together: at most so many are encoded again after a power cut."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """A file as it was read: its content's hash, and the embedding (E,) where no vector has that hash yet."""

    path: str
    state: FileState
    hash: bytes | None = None
    taken: float = 0.0
    size: tuple[int, int] | None = None
    embeds: NDArray[np.float32] | None = None
    error: ImageError | None = None


class Adding:
    """One run over folders.

    Attributes:
        added: what it has come to so far.
    """

    def __init__(self, database: Database, clip: ClipRuntime, *, workers: int) -> None:
        self._database, self._clip, self._workers = database, clip, workers
        self.added = Added()

    def run(self, roots: Sequence[str], exclude: Sequence[str]) -> Added:
        """Index folders and files; each batch is on the disk once the progress has told of it.

        Raises:
            OSError: the disk is full, and such.
            EdgeclipError: the index is damaged, or the bundle can't be opened.
        """
        walk = Walk([os.path.realpath(root) for root in roots], exclude)
        with task("Looking for changes", None):
            changed = list(self._changed(walk))
        self.added.skipped = dict(walk.skipped)
        self.added.beside, self.added.unreadable = walk.beside, walk.unreadable
        with task("Indexing", len(changed), unit="photos") as advance, threads(self._workers) as pool:
            read = in_order(self._read, changed, pool, ahead=self._workers + BATCH)  # while one is committed
            for batch in in_groups(read, BATCH):
                if not isinstance(batch, Flush):
                    self._store(batch)
                    advance(len(batch))
        with self._database.transaction() as connection:  # at the end: contents that files have exchanged are kept
            connection.execute(DROP_UNUSED)
        return self.added

    def _changed(self, walk: Walk) -> Iterator[tuple[str, FileState]]:
        """Files that are not as their row says, or have none."""
        known = {path: (size, date) for path, size, date in self._database.rows(STATES, of=tuple[str, int, int])}
        broken = {
            path: (size, date) for path, size, date in self._database.rows(BROKEN_STATES, of=tuple[str, int, int])
        }
        named: set[str] = set()
        for path in walk:
            name, state = path_to_text(path), state_of(path)
            if state is None or name in named:  # gone meanwhile, or below two of the roots
                continue
            named.add(name)
            self.added.found += 1
            now = state.size, state.mtime_ns
            if known.get(name) == now:
                self.added.unchanged += 1
            elif broken.get(name) == now:
                self.added.known_broken += 1
            elif not os.path.isfile(path):  # noqa: PTH113 - a pipe would block, a device might never end
                walk.skipped["no regular file"] += 1
                self.added.found -= 1
            else:
                yield path, state

    def _read(self, job: tuple[str, FileState]) -> Read | None:
        """In one of the threads: hash, and decode and encode where that is needed; None where the file is changing."""
        path, state = job
        content: bytes | None = TOO_LARGE
        if state.size <= MAX_FILE_BYTES:
            state = hashed(path, state)
            content = bytes.fromhex(state.sha256) if state.sha256 else None
        taken, size, embeds = state.mtime_ns / 1e9, None, None
        try:
            if content is None or not self._database.rows("SELECT 1 FROM vectors WHERE hash = ?", (content,)):
                pixels, size = crop_and_size(path, self._clip.bundle.preprocess)
                embeds = self._clip.encode_image(Crop(pixels))[0]
            with Path(path).open("rb") as file:
                taken = taken_of(file) or taken
        except MissingExtraError as error:  # which a later run may have
            return Read(path, state, error=error)
        except ImageError as error:
            return Read(path, state, content, error=error)
        except OSError:
            return None
        now = state_of(path)
        is_same = now is not None and (now.size, now.mtime_ns) == (state.size, state.mtime_ns)
        return Read(path, state, content, taken, size, embeds) if is_same else None

    def _store(self, batch: Sequence[Read | None]) -> None:
        """Commit a batch."""
        with self._database.transaction() as connection:
            for read in batch:
                if read is None:
                    continue
                name = path_to_text(read.path)
                if read.error or read.hash is None:
                    self._store_broken(connection, name, read)
                else:
                    connection.execute("DELETE FROM broken WHERE path = ?", (name,))
                    self._store_photo(connection, name, read, read.hash)
        for read in batch:
            if read is None:
                logger.warning("a file that changes while it is read is left to the next run")
            elif read.error:
                logger.warning("left out: %s", " ".join(printable(read.error.got).split()))

    def _store_broken(self, connection: sqlite3.Connection, name: str, read: Read) -> None:
        self.added.broken += 1
        connection.execute("DELETE FROM photos WHERE path = ?", (name,))
        if read.hash is not None:  # else it can't be read now, which may change without its date
            values = (name, read.state.size, read.state.mtime_ns, read.error.got if read.error else "")
            connection.execute("INSERT OR REPLACE INTO broken VALUES (?, ?, ?, ?)", values)

    def _store_photo(self, connection: sqlite3.Connection, name: str, read: Read, content: bytes) -> None:
        vector, is_new = _vector(connection, read, content)
        self.added.encoded += is_new
        facts = (read.state.size, read.state.mtime_ns, read.taken, vector)
        row = next(iter(connection.execute("SELECT id FROM photos WHERE path = ?", (name,))), None)
        if row is None and not is_new:
            same = connection.execute("SELECT id, path FROM photos WHERE vector = ?", (vector,))
            row = next(((id_,) for id_, path in same if is_gone(path_from_text(path))), None)
            self.added.moved += row is not None
            self.added.copied += row is None
        if row is None:
            connection.execute(INSERT, (name, *facts))
        else:
            connection.execute(UPDATE, (name, *facts, *row))


def _vector(connection: sqlite3.Connection, read: Read, content: bytes) -> tuple[int | None, bool]:
    """A content's row, and whether it is new: of two files that were read at once one is the copy."""
    if read.embeds is not None and read.size is not None:
        values = (content, *read.size, read.embeds.astype("<f2").tobytes())
        inserted = connection.execute(INSERT_VECTOR, values)
        if inserted.rowcount > 0:
            return inserted.lastrowid, True
    return connection.execute("SELECT id FROM vectors WHERE hash = ?", (content,)).fetchone()[0], False


STATES = "SELECT path, size, mtime_ns FROM photos"
BROKEN_STATES = "SELECT path, size, mtime_ns FROM broken"
INSERT_VECTOR = "INSERT OR IGNORE INTO vectors (hash, width, height, embedding) VALUES (?, ?, ?, ?)"
INSERT = "INSERT INTO photos (path, size, mtime_ns, taken, vector) VALUES (?, ?, ?, ?, ?)"
UPDATE = "UPDATE photos SET path = ?, size = ?, mtime_ns = ?, taken = ?, vector = ? WHERE id = ?"
