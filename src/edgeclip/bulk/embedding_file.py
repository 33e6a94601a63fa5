"""Embeddings on disk that grow as they are made, survive any interruption, and go on where they stopped.

    out.npy    the array, and out.npy.rows.jsonl: {"path": ...} or {"text": ...} for each row
    out.jsonl  {"path": ..., "embedding": [...]} a line
    out.csv    path,e0,e1,...
    and beside each OUT.edgeclip.json: which bundle it belongs to

Each row is handed to the operating system before the next is begun, so that a killed process loses none; after a power
failure what the system had not written yet is made again. Rows are told apart by their path or text alone: an image
that was changed is not encoded again. Paths are as `path_names.path_to_text` writes them.

Shape legend: E embedding size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from edgeclip.bulk.npy_file import NpyFile
from edgeclip.bulk.path_names import path_to_text
from edgeclip.bulk.row_log import Csv, JsonLines, RowLog
from edgeclip.config import Config
from edgeclip.errors import ConfigError, DataError
from edgeclip.files import output_folder, write_atomically
from edgeclip.runtime.embedding_dtype import EmbeddingDtype
from edgeclip.runtime.stream import Flush

SUFFIXES = (".npy", ".jsonl", ".csv")


class Origin(Config, frozen=True, kw_only=True):
    """The content of OUT.edgeclip.json: what all rows of a file have in common, and how many rows the last run that
    came to its end has left.
    """

    fingerprint: str
    rows: Literal["path", "text"]
    dtype: EmbeddingDtype
    embedding_size: int
    finished: int = 0


class EmbeddingFile:
    """One such file, open for writing; a context manager, which leaves nothing behind where there are no rows."""

    def __init__(self, path: Path, origin: Origin, *, group: int = 1) -> None:
        """Open what an earlier run has written, or begin a new file.

        Args:
            path: a name with one of `SUFFIXES`.
            origin: what the rows will be.
            group: rows that depend on each other, as those of a batch do. Of a group that an interrupted run has not
                completed none is kept, so that the next run forms the same groups.

        Raises:
            ConfigError: the suffix is unknown, or the file is another bundle's, of another kind, edgeclip's at all, or
                in use.
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
        self._path, self._origin = path, _claim(path, origin)
        self._is_path = origin.rows == "path"
        self._array = NpyFile(path, origin.dtype, origin.embedding_size) if path.suffix == ".npy" else None
        layout = Csv(origin.rows, origin.embedding_size) if path.suffix == ".csv" else JsonLines(origin.rows)
        self._log = RowLog(_rows_of(path) if self._array else path, layout)
        there = min(len(self._log.names), self._array.rows) if self._array else len(self._log.names)
        self.rows = there - max(there - self._origin.finished, 0) % group
        self._log.cut(self.rows)
        if self._array:
            self._array.cut(self.rows)

    def missing(self, names: Iterable[str | Flush]) -> Iterator[str | Flush]:
        """Those that have no row yet, in order. A name that comes several times has as many rows."""
        there = Counter(self._log.names)
        for name in names:
            if not isinstance(name, Flush) and there[self._written(name)] > 0:
                there[self._written(name)] -= 1
            else:
                yield name

    def append(self, name: str, embeds_E: NDArray[Any]) -> None:
        """Write one more row, of the origin's dtype."""
        if self._array:
            self._array.append(embeds_E)
        self._log.append(self._written(name), None if self._array else embeds_E)
        self.rows += 1

    def _written(self, name: str) -> str:
        return path_to_text(name) if self._is_path else name

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.rows:  # while the file is still this process's
            if self._array:
                _rows_of(self._path).unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            _note(self._path).unlink(missing_ok=True)
        if self._array:
            self._array.close()
        self._log.close()
        if error is None and self.rows:
            _write_note(self._path, msgspec.structs.replace(self._origin, finished=self.rows))


def _rows_of(array: Path) -> Path:
    return array.with_name(f"{array.name}.rows.jsonl")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.edgeclip.json")


def _write_note(path: Path, origin: Origin) -> None:
    write_atomically(_note(path), msgspec.json.encode(origin) + b"\n")


def _claim(path: Path, origin: Origin) -> Origin:
    """Note which bundle a new file belongs to, or make sure that an existing one belongs to this."""
    note = _note(path)
    if not path.exists():
        _write_note(path, origin)
        return origin
    try:
        found = msgspec.json.decode(note.read_bytes(), type=Origin)
    except FileNotFoundError as error:
        raise ConfigError(
            f"`out` {path}, which edgeclip did not write", expected="a new file", fix="give another `out`"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{note} ({error})", expected="what embed wrote", fix="give another `out`") from error
    for field in ("fingerprint", "rows", "dtype", "embedding_size"):
        theirs, ours = getattr(found, field), getattr(origin, field)
        if theirs != ours:
            raise ConfigError(
                f"`out` {path}, whose {field} is {theirs}", expected=f"{ours}, as asked for", fix="give another `out`"
            )
    return found
