"""Text files with a record for each embedding, appended to and read back: JSON lines and CSV.

Shape legend: E embedding size.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from edgeclip.errors import DataError
from edgeclip.files import locked


class JsonLines:
    """One object a line: {"path": ..., "embedding": [...]}, the embedding in the shortest digits that give it back."""

    def __init__(self, column: str) -> None:
        self._column = column
        self.header = b""

    def record(self, name: str, embeds_E: NDArray[Any] | None) -> bytes:
        """The line of one row; without an embedding where that is kept elsewhere."""
        fields = {self._column: name}
        if embeds_E is not None:
            fields["embedding"] = msgspec.Raw(f"[{','.join(map(str, embeds_E))}]".encode())  # type: ignore[assignment]
        return msgspec.json.encode(fields) + b"\n"

    def name(self, record: bytes) -> str:
        """The name in a record.

        Raises:
            ValueError: it is no record of this kind.
        """
        fields = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
        return msgspec.json.decode(fields.get(self._column, msgspec.Raw(b"null")), type=str)

    def is_whole(self, record: bytes) -> bool:
        """Whether a record ends where a line does."""
        return True


class Csv:
    """RFC 4180 with LF: a header path,e0,e1,... and quotes around a name that needs them."""

    def __init__(self, column: str, embedding_size: int) -> None:
        self._embedding_size = embedding_size
        self.header = (",".join([column, *(f"e{i}" for i in range(embedding_size))]) + "\n").encode()

    def record(self, name: str, embeds_E: NDArray[Any] | None) -> bytes:
        """The record of one row."""
        quoted = '"' + name.replace('"', '""') + '"' if any(char in name for char in '",\r\n') else name
        return ",".join([quoted, *map(str, () if embeds_E is None else embeds_E)]).encode() + b"\n"

    def name(self, record: bytes) -> str:
        """The name in a record.

        Raises:
            ValueError: it is no record of this kind.
        """
        name, *numbers = record.decode().rsplit(",", self._embedding_size)
        if len(numbers) != self._embedding_size:
            raise ValueError("too few numbers")
        return name[1:-1].replace('""', '"') if name.startswith('"') else name

    def is_whole(self, record: bytes) -> bool:
        """Whether a record ends where a line does, and not within a quoted name."""
        return record.count(b'"') % 2 == 0


class RowLog:
    """A text file that is appended to, one record a row; what a killed process has left torn at its end is cut off."""

    def __init__(self, path: Path, layout: JsonLines | Csv) -> None:
        """Open what a `RowLog` of the same layout wrote, or begin a new one; it is this process's until closed.

        Raises:
            ConfigError: another process writes to it.
            DataError: it holds something else.
            OSError: it can't be written to.
        """
        self._path, self._layout = path, layout
        self.names: list[str] = []
        self._ends = array("q")  # where each record ends in the file
        with ExitStack() as stack:
            stack.enter_context(locked(path, f"{path}, to which another process writes", fix="wait for it to end"))
            self._file = stack.enter_context(path.open("a+b"))
            self._read()
            self._held = stack.pop_all()

    def _read(self) -> None:
        self._file.seek(0)
        records = self._whole_records()
        header = next(records, b"") if self._layout.header else b""
        if header not in (b"", self._layout.header):
            raise self._foreign(header)
        end = len(header)
        for record in records:
            try:
                self.names.append(self._layout.name(record))
            except (msgspec.DecodeError, ValueError) as error:
                raise self._foreign(record) from error
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
        del self.names[rows:], self._ends[rows:]

    def append(self, name: str, embeds_E: NDArray[Any] | None) -> None:
        """Write one more row."""
        self._write(self._layout.record(name, embeds_E))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def close(self) -> None:
        """Have everything on disk."""
        with self._held:
            os.fsync(self._file.fileno())
