"""Which of many vectors are near a query, from one bit a component.

A vector's bits are the signs of what it differs by from the mean of all, after a rotation by chance that spreads what a
few components would tell over all (RaBitQ, Gao and Long 2024). Two pictures are near where their bits agree. A text is
no picture: what its vector has in common with other texts, and pictures don't differ by, would decide most signs. So it
is turned into the weights of the bits that tell its product with a picture best, by least squares over a sample.

Candidates by the number of bits that agree are ranked by those weights; both is an order of magnitude less to read than
float16. What is left is then scored exactly. The bits are a cache of the database, in a file beside it: one that is
missing, damaged or too old is made anew.

Shape legend: N vectors, C candidates, E embedding size, W words of 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.cpu import processors
from edgeclip.files import write_atomically

MAGIC = b"edgeclip sign bits 1\n"
ALIGN = 64
CHUNK = 1 << 16
"""Vectors whose counts are in the processor's cache at once."""


OUT = np.iinfo(np.uint16).max
CANDIDATES = 20
"""How many vectors are weighed for each that is wanted."""
RIDGE = 0.01


class Code(NamedTuple):
    """What a vector's bits are, and what a query's weights.

    Attributes:
        mean: (E,), of pictures.
        rotation: (E, E), orthogonal.
        text: (E, E), from a text to the weights of the bits.
    """

    mean: NDArray[np.float32]
    rotation: NDArray[np.float32]
    text: NDArray[np.float32]

    @classmethod
    def of(cls, sample_NE: NDArray[np.float32]) -> Code:
        """The one that a sample of pictures gives."""
        size = sample_NE.shape[1]
        normal_EE = np.random.default_rng(0).standard_normal((size, size))
        rotation_EE = np.linalg.qr(normal_EE)[0].astype(np.float32)
        mean_E = sample_NE.mean(0, dtype=np.float32)
        rotated_NE = (sample_NE - mean_E) @ rotation_EE
        signs_NE = np.where(rotated_NE > 0, np.float32(1), np.float32(-1))
        signs_NE -= signs_NE.mean(0)
        of_signs_EE = signs_NE.T @ signs_NE / len(signs_NE) + RIDGE * np.eye(size, dtype=np.float32)
        with_signs_EE = signs_NE.T @ rotated_NE / len(signs_NE)
        weights_EE = rotation_EE @ np.linalg.solve(of_signs_EE, with_signs_EE).T
        return cls(mean_E, rotation_EE, weights_EE.astype(np.float32))

    def words(self, embeds_NE: NDArray[np.float32]) -> NDArray[np.uint64]:
        """The bits of pictures, as words (N, W)."""
        return packed(((embeds_NE - self.mean) @ self.rotation).astype(np.float32, copy=False))

    def weights(self, query_E: NDArray[np.float32], *, is_picture: bool) -> NDArray[np.float32]:
        """The weights (E,) of the bits for what is asked."""
        weights_E = (query_E - self.mean) @ self.rotation if is_picture else query_E @ self.text
        return weights_E.astype(np.float32, copy=False)


class Header(msgspec.Struct, frozen=True):
    """What the bits are of."""

    uuid: str
    rows: int
    embedding_size: int


class SignBits:
    """The bits of vectors, and how to ask for the nearest.

    Attributes:
        ids_N: int64, ascending.
        words_WN: the bits.
    """

    def __init__(self, ids_N: NDArray[np.int64], code: Code, words_WN: NDArray[np.uint64]) -> None:
        self.ids_N, self.code, self.words_WN = ids_N, code, words_WN

    def __len__(self) -> int:
        return len(self.ids_N)

    def nearest(
        self, weights_E: NDArray[np.float32], count: int, *, among_N: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Ids of the `count` vectors whose bits weigh most.

        Args:
            weights_E: of the bits, see `Code.weights`.
            count: how many.
            among_N: which of the vectors may be; None for all.
        """
        differing_N = self._differing(packed(weights_E[None])[0])
        if among_N is not None:
            differing_N[~among_N] = OUT
        up_to = np.cumsum(np.bincount(differing_N, minlength=OUT + 1)[:OUT])
        border = int(np.searchsorted(up_to, min(CANDIDATES * count, up_to[-1])))
        found_C = np.flatnonzero(differing_N <= border)
        if len(found_C) > count:
            weighed_C = self._weighed(weights_E, found_C)
            found_C = found_C[np.argpartition(-weighed_C, count)[:count]]
        return self.ids_N[found_C]

    def _weighed(self, weights_E: NDArray[np.float32], rows_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """The sum of the weights of the bits that are 1 (C,), from tables of what each byte's eight come to."""
        size = -(-len(weights_E) // 64) * 64
        weights_B8 = np.pad(weights_E, (0, size - len(weights_E))).reshape(-1, 8)
        tables_BV = weights_B8 @ np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).T.astype(np.float32)
        bytes_BC = np.ascontiguousarray(self.words_WN[:, rows_C].T).view(np.uint8).T
        total_C = np.zeros(len(rows_C), np.float32)
        for table_V, bytes_C in zip(tables_BV, np.ascontiguousarray(bytes_BC), strict=True):
            total_C += table_V[bytes_C]
        return total_C

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
        for word, words_N in zip(query_W, self.words_WN[:, start : start + CHUNK], strict=True):
            part += bit_count(words_N ^ word)

    def write(self, path: Path, uuid: str) -> None:
        """Put them into a file, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        data = MAGIC + msgspec.json.encode(Header(uuid, len(self), len(self.code.mean))) + b"\n"
        for array in (self.ids_N, *self.code, self.words_WN):
            data += bytes(-len(data) % ALIGN) + array.tobytes()
        write_atomically(path, data + bytes(-len(data) % ALIGN))


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
        ids_N, *code, words_WN = (
            np.memmap(path, dtype, "r", offset, shape) for (dtype, shape), offset in zip(shapes, offsets, strict=False)
        )
    except OSError:
        return None
    return SignBits(ids_N, Code(*code), words_WN)


def _header(file: BinaryIO) -> Header | None:
    if file.read(len(MAGIC)) != MAGIC:
        return None
    try:
        header = msgspec.json.decode(file.readline(1000), type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return header if header.rows > 0 and header.embedding_size > 0 else None


def _shapes(header: Header) -> list[tuple[str, tuple[int, ...]]]:
    rows, size = header.rows, header.embedding_size
    code = [("<f4", (size,)), ("<f4", (size, size)), ("<f4", (size, size))]
    return [("<i8", (rows,)), *code, ("<u8", (-(-size // 64), rows))]


def _offsets(start: int, shapes: list[tuple[str, tuple[int, ...]]]) -> Iterator[int]:
    """Where each array begins, and where the last one ends."""
    for dtype, shape in shapes:
        start += -start % ALIGN
        yield start
        start += np.dtype(dtype).itemsize * int(np.prod(shape))
    yield start + -start % ALIGN


def packed(vectors_NE: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Signs of vectors as words (N, W); what fills the last word up is 0."""
    bytes_NB = np.packbits(vectors_NE > 0, axis=1)
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
