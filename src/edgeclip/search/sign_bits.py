"""Which of many vectors are near a query, from one bit a component.

A vector's bits are the signs of what it differs by from the mean of all; two vectors that agree in most bits have a
large cosine. Counting is an order of magnitude less to read than float16, and its candidates are then scored exactly.
The bits are a cache of the database, in a file beside it: one that is missing, damaged or too old is made anew.

Shape legend: N vectors, E embedding size, W words of 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.cpu import processors
from edgeclip.files import write_atomically

MAGIC = b"edgeclip sign bits 1\n"
ALIGN = 64
CHUNK = 1 << 16
"""Vectors whose counts are in the processor's cache at once."""


class Header(msgspec.Struct, frozen=True):
    """What the bits are of."""

    uuid: str
    rows: int
    embedding_size: int


class SignBits:
    """The bits of vectors, and how to ask for the nearest.

    Attributes:
        ids_N: int64, ascending.
        mean_E: float32.
    """

    def __init__(self, ids_N: NDArray[np.int64], mean_E: NDArray[np.float32], words_WN: NDArray[np.uint64]) -> None:
        self.ids_N, self.mean_E, self._words_WN = ids_N, mean_E, words_WN

    def __len__(self) -> int:
        return len(self.ids_N)

    def nearest(
        self, query_E: NDArray[np.float32], count: int, *, among_N: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Ids of at least `count` vectors whose bits differ least from the query's; ties are all there.

        Args:
            query_E: what the bits are compared with, centred as its kind is.
            count: how many.
            among_N: which of the vectors may be; None for all.
        """
        differing_N = self._differing(packed(query_E[None])[0])
        if among_N is not None:
            differing_N[~among_N] = OUT
        up_to = np.cumsum(np.bincount(differing_N, minlength=OUT + 1)[:OUT])
        border = int(np.searchsorted(up_to, min(count, up_to[-1])))
        return self.ids_N[np.flatnonzero(differing_N <= border)]

    def _differing(self, query_W: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """How many bits of each vector differ (N,)."""
        differing_N = np.empty(len(self), np.uint16)
        starts = range(0, len(self), CHUNK)
        if len(starts) < 2:
            self._count(query_W, 0, differing_N)
        else:  # NumPy lets other threads run meanwhile
            with ThreadPoolExecutor(processors()) as pool:
                list(pool.map(lambda start: self._count(query_W, start, differing_N), starts))
        return differing_N

    def _count(self, query_W: NDArray[np.uint64], start: int, differing_N: NDArray[np.uint16]) -> None:
        part = differing_N[start : start + CHUNK]
        part[:] = 0
        for word, words_N in zip(query_W, self._words_WN[:, start : start + CHUNK], strict=True):
            part += bit_count(words_N ^ word)

    def write(self, path: Path, uuid: str) -> None:
        """Put them into a file, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        data = MAGIC + msgspec.json.encode(Header(uuid, len(self), len(self.mean_E))) + b"\n"
        for array in (self.ids_N, self.mean_E, self._words_WN):
            data += bytes(-len(data) % ALIGN) + array.tobytes()
        write_atomically(path, data + bytes(-len(data) % ALIGN))


OUT = np.iinfo(np.uint16).max


def read(path: Path, uuid: str, embedding_size: int) -> SignBits | None:
    """The bits of a file, mapped into memory; None where they are not those of this database."""
    try:
        with path.open("rb") as file:
            header = _header(file)
            if header is None or (header.uuid, header.embedding_size) != (uuid, embedding_size):
                return None
            shapes = _shapes(header)
            offsets = list(_offsets(file.tell(), shapes))
            if offsets[-1] != path.stat().st_size:
                return None
        ids_N, mean_E, words_WN = (
            np.memmap(path, dtype, "r", offset, shape) for (dtype, shape), offset in zip(shapes, offsets, strict=False)
        )
    except OSError:
        return None
    return SignBits(ids_N, mean_E, words_WN)


def _header(file: BinaryIO) -> Header | None:
    if file.read(len(MAGIC)) != MAGIC:
        return None
    try:
        header = msgspec.json.decode(file.readline(1000), type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return header if header.rows > 0 and header.embedding_size > 0 else None


def _shapes(header: Header) -> list[tuple[str, tuple[int, ...]]]:
    words = -(-header.embedding_size // 64)
    return [("<i8", (header.rows,)), ("<f4", (header.embedding_size,)), ("<u8", (words, header.rows))]


def _offsets(start: int, shapes: list[tuple[str, tuple[int, ...]]]) -> Iterator[int]:
    """Where each array begins, and where the last one ends."""
    for dtype, shape in shapes:
        start += -start % ALIGN
        yield start
        start += np.dtype(dtype).itemsize * int(np.prod(shape))
    yield start + -start % ALIGN


def packed(centred_NE: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Signs as words (N, W); what fills the last word up is 0."""
    bytes_NB = np.packbits(centred_NE > 0, axis=1)
    return np.pad(bytes_NB, ((0, 0), (0, -bytes_NB.shape[1] % 8))).view("<u8")


if hasattr(np, "bitwise_count"):

    def bit_count(words_N: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """How many bits of each word are 1."""
        return np.bitwise_count(words_N)
else:  # NumPy 1
    _TABLE = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, np.uint8)

    def bit_count(words_N: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """How many bits of each word are 1."""
        return _TABLE[words_N.view(np.uint16)].reshape(-1, 4).sum(1, dtype=np.uint8)
