"""A .npy file that grows row by row and can be read at any moment.

Shape legend: N rows, E embedding size.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeclip.bulk.file_state import FileState
from edgeclip.errors import DataError


class NpyFile:
    """An array (N, E) on disk. A row is written first and then the header's N, for which numpy's header has room, so
    that the file is whole whenever the process ends.
    """

    def __init__(self, path: Path, dtype: str, embedding_size: int) -> None:
        """Open what a `NpyFile` of the same dtype and E wrote, or begin a new one.

        Raises:
            DataError: it is another file.
            OSError: it can't be written to.
        """
        self._dtype, self._embedding_size = np.dtype(dtype), embedding_size
        self._file = path.open("r+b" if path.exists() else "x+b")
        empty = self._header(0)
        found = self._file.read(len(empty))
        before_N = empty.index(b"(0, ")
        if len(found) == len(empty) and found[:before_N] != empty[:before_N]:
            self._file.close()
            raise DataError(f"{path}, another array", expected="what embed wrote", fix="give another `out`")
        self.rows = max(self._file.seek(0, os.SEEK_END) - len(empty), 0) // self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return self._embedding_size * self._dtype.itemsize

    def _header(self, rows: int) -> bytes:
        header = io.BytesIO()
        content = {"descr": self._dtype.str, "fortran_order": False, "shape": (rows, self._embedding_size)}
        np.lib.format.write_array_header_1_0(header, content)
        return header.getvalue()

    def cut(self, rows: int) -> None:
        """Keep the first `rows` rows, and nothing torn after them."""
        self._write_header(rows)
        self._file.truncate(len(self._header(0)) + rows * self._row_bytes)

    def append(self, name: str, state: FileState | None, embeds_E: NDArray[Any]) -> None:
        """Write one more row, as a `RowLog` does; there is no room for name and state.

        Raises:
            ValueError: it has another length.
        """
        if embeds_E.shape != (self._embedding_size,):
            raise ValueError(f"a row of shape {embeds_E.shape}; expected ({self._embedding_size},)")
        self._file.seek(len(self._header(0)) + self.rows * self._row_bytes)
        self._file.write(embeds_E.astype(self._dtype, copy=False).tobytes())
        self._file.flush()
        self._write_header(self.rows + 1)

    def copy(self, to: BinaryIO, rows: Sequence[int], states: Mapping[int, FileState]) -> None:
        """Write a file of some rows, as a `RowLog` does."""
        start = to.write(self._header(len(rows)))
        for row in rows:
            self._file.seek(start + row * self._row_bytes)
            to.write(self._file.read(self._row_bytes))

    def _write_header(self, rows: int) -> None:
        self._file.seek(0)
        self._file.write(self._header(rows))
        self._file.flush()
        self.rows = rows

    def close(self) -> None:
        """Have everything on disk."""
        with self._file:
            os.fsync(self._file.fileno())
