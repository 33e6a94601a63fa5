"""Text files with a record for each embedding, appended to and read back: JSON lines and CSV.

Shape legend: E embedding size.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from numpy.typing import NDArray

from edgeclip.bulk.file_state import FileState
from edgeclip.errors import MALFORMED, DataError


class JsonLines:
    """One object a line: {"path": ..., "size": ..., "mtime_ns": ..., "embedding": [...]}; a text has no size and date.

    The embedding is in the shortest digits that give it back.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self.header = b""

    def record(self, name: str, state: FileState | None, embeds_E: NDArray[Any] | None) -> bytes:
        """The line of one row; without an embedding where that is kept elsewhere."""
        fields: dict[str, Any] = {self._column: name}
        if state is not None:
            fields |= msgspec.to_builtins(state)
        if embeds_E is not None:
            fields["embedding"] = msgspec.Raw(f"[{','.join(map(str, embeds_E))}]".encode())
        return msgspec.json.encode(fields) + b"\n"

    def read(self, record: bytes) -> tuple[str, FileState | None]:
        """The name in a record, and the state that the file had.

        Raises:
            ValueError: it is no record of this kind.
        """
        fields = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
        name = msgspec.json.decode(fields.get(self._column, msgspec.Raw(b"null")), type=str)
        return name, msgspec.json.decode(record, type=FileState) if "size" in fields else None

    def with_state(self, record: bytes, state: FileState) -> bytes:
        """The same record with another state."""
        fields = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
        return msgspec.json.encode(fields | msgspec.to_builtins(state)) + b"\n"

    def is_whole(self, record: bytes) -> bool:
        """Whether a record ends where a line does."""
        return True


class Csv:
    """RFC 4180 with LF: a header path,e0,e1,... and quotes around a name that needs them."""

    def __init__(self, column: str, embedding_size: int) -> None:
        self._embedding_size = embedding_size
        self.header = (",".join([column, *(f"e{i}" for i in range(embedding_size))]) + "\n").encode()

    def record(self, name: str, state: FileState | None, embeds_E: NDArray[Any] | None) -> bytes:
        """The record of one row, in which there is no room for a state."""
        quoted = '"' + name.replace('"', '""') + '"' if any(char in name for char in '",\r\n') else name
        return ",".join([quoted, *map(str, () if embeds_E is None else embeds_E)]).encode() + b"\n"

    def read(self, record: bytes) -> tuple[str, FileState | None]:
        """The name in a record.

        Raises:
            ValueError: it is no record of this kind.
        """
        name, *numbers = record.decode().rsplit(",", self._embedding_size)
        if len(numbers) != self._embedding_size:
            raise ValueError("too few numbers")
        return name[1:-1].replace('""', '"') if name.startswith('"') else name, None

    def with_state(self, record: bytes, state: FileState) -> bytes:
        """The same record."""
        return record

    def is_whole(self, record: bytes) -> bool:
        """Whether a record ends where a line does, and not within a quoted name."""
        return record.count(b'"') % 2 == 0


class RowLog:
    """A text file that is appended to, one record a row; what a killed process has left torn at its end is cut off.

    Attributes:
        names: of the rows that it was opened with.
        states: the states that their files had; None for texts, and where the layout has no room for it.
    """

    def __init__(self, path: Path, layout: JsonLines | Csv) -> None:
        """Open what a `RowLog` of the same layout wrote, or begin a new one.

        Raises:
            DataError: it holds something else.
            OSError: it can't be written to.
        """
        self._path, self._layout = path, layout
        self.names: list[str] = []
        self.states: list[FileState | None] = []
        self._ends = array("q")  # where each record ends in the file
        self._file = path.open("a+b")
        try:
            self._read()
        except DataError:
            self._file.close()
            raise

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._ends)

    def _read(self) -> None:
        self._file.seek(0)
        records = self._whole_records()
        header = next(records, b"") if self._layout.header else b""
        if header not in (b"", self._layout.header):
            raise self._foreign(header)
        end = len(header)
        for record in records:
            try:
                name, state = self._layout.read(record)
            except MALFORMED as error:
                raise self._foreign(record) from error
            self.names.append(name)
            self.states.append(state)
            end += len(record)
            self._ends.append(end)

    def _whole_records(self) -> Iterator[bytes]:
        record = b""
        for line in self._file:
            record += line
            if line.endswith(b"\n") and self._layout.is_whole(record):
                yield record
                record = b""

    def _foreign(self, record: bytes) -> DataError:
        return DataError(
            f"{self._path} with the line {record[:40]!r}", expected="what embed wrote", fix="give another `out`"
        )

    def cut(self, rows: int) -> None:
        """Keep the first `rows` rows, and nothing torn after them."""
        self._file.truncate(self._ends[rows - 1] if rows else 0)
        if not rows:
            self._write(self._layout.header)
        del self.names[rows:], self.states[rows:], self._ends[rows:]

    def append(self, name: str, state: FileState | None, embeds_E: NDArray[Any] | None) -> None:
        """Write one more row."""
        record = self._layout.record(name, state, embeds_E)
        self._write(record)
        self._ends.append((self._ends[-1] if self._ends else len(self._layout.header)) + len(record))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def copy(self, to: BinaryIO, rows: Sequence[int], states: Mapping[int, FileState]) -> None:
        """Write a file of some rows, of which some get another state."""
        to.write(self._layout.header)
        for row in rows:
            start = self._ends[row - 1] if row else len(self._layout.header)
            self._file.seek(start)
            record = self._file.read(self._ends[row] - start)
            to.write(self._layout.with_state(record, states[row]) if row in states else record)

    def close(self) -> None:
        """Have everything on disk."""
        with self._file:
            os.fsync(self._file.fileno())
