"""Embeddings on disk that grow as they are made, survive any interruption, and go on where they stopped.

    out.npy    the array, and out.npy.rows.jsonl, a line for each row: {"path": ..., "size": ..., "mtime_ns": ...}
    out.jsonl  {"path": ..., "size": ..., "mtime_ns": ..., "embedding": [...]} a line
    out.csv    path,e0,e1,... and out.csv.rows.jsonl, as beside an array
    and beside each OUT.edgeclip.json: which bundle it belongs to, and the root that paths are relative to

Of texts there is {"text": ...} alone.

Each row is handed to the operating system before the next is begun, so that a killed process loses none; after a power
failure what the system had not written yet is made again. A file that has changed gets a new row at the end; the row
that it had goes when the run has come to its end. Paths are as `path_names.path_to_text` writes them.

Shape legend: E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from numpy.typing import NDArray

from edgeclip.bulk.known_rows import FileRows, TextRows
from edgeclip.bulk.npy_file import NpyFile
from edgeclip.bulk.origin import Origin, claim, files_of, has_moved, note_of, put_in_place, root_folder, write_note
from edgeclip.bulk.row_log import Csv, JsonLines, RowLog
from edgeclip.errors import ConfigError, DataError
from edgeclip.files import locked, output_folder, part_of, remove_part
from edgeclip.runtime.stream import Flush

SUFFIXES = (".npy", ".jsonl", ".csv")


class EmbeddingFile:
    """One such file, open for writing; a context manager, which leaves nothing behind where there are no rows.

    Attributes:
        rows: how many there are.
        added: how many were written since it was opened.
        files: what is known of the rows' files; None where they are of texts.
    """

    def __init__(self, path: Path, origin: Origin, *, group: int = 1, prune: bool = False) -> None:
        """Open what an earlier run has written, or begin a new file.

        Args:
            path: a name with one of `SUFFIXES`.
            origin: what the rows will be. Its root counts for a new file, and where the files of an earlier root are
                found at this one.
            group: rows that depend on each other, as those of a batch do. Of a group that an interrupted run has not
                completed none is kept, so that the next run forms the same groups.
            prune: drop the rows of files that are no longer there.

        Raises:
            ConfigError: the suffix is unknown, or the file is another bundle's, of another kind, an earlier version's,
                not edgeclip's at all, or in use.
            DataError: the file was changed.
            OSError: it can't be written to.
        """
        if path.suffix not in SUFFIXES:
            raise ConfigError(
                f"`out` {path}",
                expected=f"a name with {' or '.join(SUFFIXES)}",
                fix=f"use {path.stem or 'embeddings'}.npy",
            )
        output_folder(path.parent)
        self._path, self._prune = path, prune
        self.added = 0
        with ExitStack() as lock:
            lock.enter_context(locked(path, f"{path}, to which another process writes", fix="wait for it to end"))
            self._origin = claim(path, origin)
            with ExitStack() as files:
                self._open(files, group, origin.root)
                self._files = files.pop_all()
            self._lock = lock.pop_all()

    def _open(self, files: ExitStack, group: int, root: str | None) -> None:
        origin, (*_, log) = self._origin, files_of(self._path)
        self._data: NpyFile | RowLog | None = None
        if self._path.suffix == ".npy":
            self._data = NpyFile(self._path, origin.dtype, origin.embedding_size)
        elif self._path.suffix == ".csv":
            self._data = RowLog(self._path, Csv(origin.rows, origin.embedding_size))
        if self._data:
            files.callback(self._data.close)
            if self._data.rows and not log.exists():
                raise DataError(
                    f"{self._path} without {log.name}", expected="both", fix="bring it back, or give another `out`"
                )
        self._log = RowLog(log, JsonLines(origin.rows))
        files.callback(self._log.close)
        there = min(self._log.rows, self._data.rows) if self._data else self._log.rows
        self.rows = there - max(there - origin.finished, 0) % group
        self._log.cut(self.rows)
        if self._data:
            self._data.cut(self.rows)
        if root is not None and has_moved(origin, root, self._log.names):
            self._origin = msgspec.structs.replace(origin, root=root)
            write_note(self._path, self._origin)
        self.files = (
            FileRows(root_folder(self._origin), self._log.names, self._log.states) if root is not None else None
        )
        self._texts = TextRows(self._log.names)

    def missing(self, items: Iterable[str | Flush]) -> Iterator[str | Flush]:
        """The paths or texts that have no row yet, in order."""
        return (self.files or self._texts).missing(items)

    def append(self, item: str, embeds_E: NDArray[Any]) -> None:
        """Write one more row, of the origin's dtype, for a path or text that `missing` has given."""
        name, state = self.files.entry(item) if self.files else (item, None)
        if self._data:
            self._data.append(name, state, embeds_E)
        self._log.append(name, state, None if self._data else embeds_E)
        self.rows += 1
        self.added += 1

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            with self._files:
                is_replaced = error is None and self._write_without_outdated()
            if not self.rows:
                for file in (*files_of(self._path), note_of(self._path)):
                    file.unlink(missing_ok=True)
                    remove_part(file)
            elif error is None:
                origin = msgspec.structs.replace(self._origin, finished=self.rows)
                if is_replaced:
                    put_in_place(self._path, origin)
                else:
                    write_note(self._path, origin)

    def _write_without_outdated(self) -> bool:
        """Write what is to take the files' place, where there is anything to change."""
        if self.files is None:
            return False
        self.files.settle(prune=self._prune)
        kept = [row for row in range(self.rows) if row not in self.files.outdated]
        if len(kept) == self.rows and not self.files.touched:
            return False
        with ExitStack() as undo:
            files = (self._data, self._log) if self._data else (self._log,)
            for path, file in zip(files_of(self._path), files, strict=True):
                undo.callback(remove_part, path)
                with part_of(path).open("wb") as part:
                    file.copy(part, kept, self.files.touched)
                    part.flush()
                    os.fsync(part.fileno())
            undo.pop_all()
        self.rows = len(kept)
        return True
