"""Which of many vectors are near a query, from two bits a component.

The first bit is the sign of what a vector differs by from the mean of all, after a rotation by chance that spreads what
a few components would tell over all (as RaBitQ does, Gao and Long 2024); the second, whether that is large. Candidates
are those whose signs agree most with the query's. A text is no picture: what its vector has in common with other texts,
and pictures don't differ by, would decide most signs. So its product with pictures is fitted by their signs, by least
squares over a sample, and the signs are those of the fit. The candidates are ranked by another such fit, of both bits.

Both is an order of magnitude less to read than float16. What is left is then scored exactly. The bits are a cache of
the database, in a file beside it: one that is missing, damaged or too old is made anew.

Shape legend: N vectors, C candidates, E embedding size, W words of 64 bits, B bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.cpu import processors
from edgeclip.errors import MALFORMED
from edgeclip.files import write_atomically

MAGIC = b"edgeclip sign bits 2\n"
ALIGN = 64
CHUNK = 1 << 16
"""Vectors whose counts are in the processor's cache at once."""


OUT = np.iinfo(np.uint16).max
CANDIDATES = 30
"""How many vectors are weighed for each that is wanted."""
COUNTED = 1 << 16
RIDGE = 0.01
BYTES_V8 = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
"""The bits of every byte."""


class Code(NamedTuple):
    """What a vector's bits are, and what a query's weights.

    Attributes:
        mean: (E,), of pictures.
        rotation: (E, E), orthogonal.
        large: (E,), from which size on a component is large.
        by_sign: (E, E), from a query to the weights that fit its products with pictures by their signs.
        by_both: (E, 2 E), the same by signs and by signs of large components.
    """

    mean: NDArray[np.float32]
    rotation: NDArray[np.float32]
    large: NDArray[np.float32]
    by_sign: NDArray[np.float32]
    by_both: NDArray[np.float32]

    @classmethod
    def of(cls, sample_NE: NDArray[np.float32]) -> Code:
        """The one that a sample of pictures gives."""
        size = sample_NE.shape[1]
        normal_EE = np.random.default_rng(0).standard_normal((size, size))
        rotation_EE = np.linalg.qr(normal_EE)[0].astype(np.float32)
        mean_E = sample_NE.mean(0, dtype=np.float32)
        rotated_NE = (sample_NE - mean_E) @ rotation_EE
        large_E = np.median(np.abs(rotated_NE), 0)
        signs_NE = np.where(rotated_NE > 0, np.float32(1), np.float32(-1))
        both_NF = np.concatenate([signs_NE, signs_NE * (np.abs(rotated_NE) > large_E)], 1)
        fits = (rotation_EE @ _fitted(features, rotated_NE).T for features in (signs_NE, both_NF))
        return cls(*(part.astype(np.float32) for part in (mean_E, rotation_EE, large_E, *fits)))

    def words(self, embeds_NE: NDArray[np.float32]) -> NDArray[np.uint64]:
        """The bits of pictures, as words (N, 2 W): those of signs, those of sizes."""
        rotated_NE = ((embeds_NE - self.mean) @ self.rotation).astype(np.float32, copy=False)
        return np.concatenate([packed(rotated_NE), packed(np.abs(rotated_NE) - self.large)], 1)

    def signs(self, query_E: NDArray[np.float32], *, is_picture: bool) -> NDArray[np.uint64]:
        """The signs (W,) that pictures near to a query have."""
        wanted_E = alone(query_E - self.mean, self.rotation) if is_picture else alone(query_E, self.by_sign)
        return packed(wanted_E[None])[0]


def _fitted(features_NF: NDArray[np.float32], values_NE: NDArray[np.float32]) -> NDArray[np.float32]:
    """The matrix (F, E) by which features come nearest to values."""
    features_NF = features_NF - features_NF.mean(0)
    products_FF = features_NF.T @ features_NF / len(features_NF) + RIDGE * np.eye(features_NF.shape[1])
    return np.linalg.solve(products_FF, features_NF.T @ values_NE / len(features_NF))


class Header(msgspec.Struct, frozen=True):
    """What the bits are of, and the checksum of all but the bits, of which a wrong one costs a candidate at most."""

    uuid: str
    rows: int
    embedding_size: int
    checksum: int


class SignBits:
    """The bits of vectors, and how to ask for the nearest.

    Attributes:
        ids_N: int64, ascending.
        code: what the bits are.
        words_WN: the bits, (2 W, N), see `Code.words`.
    """

    def __init__(self, ids_N: NDArray[np.int64], code: Code, words_WN: NDArray[np.uint64]) -> None:
        self.ids_N, self.code, self.words_WN = ids_N, code, words_WN

    def __len__(self) -> int:
        return len(self.ids_N)

    def nearest(
        self,
        query_E: NDArray[np.float32],
        count: int,
        *,
        is_picture: bool,
        among_N: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Ids of the `count` vectors that are nearest by their bits.

        Args:
            query_E: unit vector.
            count: how many.
            is_picture: whether the query is a picture's vector, and no text's.
            among_N: which of the vectors may be; None for all.
        """
        differing_N = self._differing(self.code.signs(query_E, is_picture=is_picture))
        if among_N is not None:
            differing_N[~among_N] = OUT
        found_C = np.flatnonzero(differing_N <= _border(differing_N, CANDIDATES * count))
        if len(found_C) > count:
            fit_C = self._fit(query_E, found_C)
            found_C = found_C[np.argpartition(-fit_C, count)[:count]]
        return self.ids_N[found_C]

    def _fit(self, query_E: NDArray[np.float32], rows_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """The products with a query as both bits tell them (C,), but for a constant."""
        of_sign_E, of_large_E = np.split(alone(query_E, self.code.by_both), 2)
        signs_WC, large_WC = np.split(self.words_WN[:, rows_C], 2)
        total_C = _weighed(2 * of_sign_E, signs_WC)
        total_C += _weighed(of_large_E, signs_WC & large_WC)
        total_C -= _weighed(of_large_E, ~signs_WC & large_WC)
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
        for word, words_N in zip(query_W, self.words_WN[:, start : start + CHUNK], strict=False):  # the signs
            part += bit_count(words_N ^ word)

    def write(self, path: Path, uuid: str) -> None:
        """Put them into a file, whole or not at all.

        Raises:
            OSError: it can't be written.
        """
        header = Header(uuid, len(self), len(self.code.mean), _checksum(self.ids_N, self.code))
        data = MAGIC + msgspec.json.encode(header) + b"\n"
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
            np.asarray(np.memmap(path, dtype, "r", offset, shape))
            for (dtype, shape), offset in zip(shapes, offsets, strict=False)
        )
    except OSError:
        return None
    return SignBits(ids_N, Code(*code), words_WN) if _checksum(ids_N, Code(*code)) == header.checksum else None


def _checksum(ids_N: NDArray[np.int64], code: Code) -> int:
    return zlib.crc32(b"".join(array.tobytes() for array in (ids_N, *code)))


def _header(file: BinaryIO) -> Header | None:
    if file.read(len(MAGIC)) != MAGIC:
        return None
    try:
        header = msgspec.json.decode(file.readline(1000), type=Header)
    except MALFORMED:
        return None
    return header if header.rows > 0 and header.embedding_size > 0 else None


def _shapes(header: Header) -> list[tuple[str, tuple[int, ...]]]:
    rows, size = header.rows, header.embedding_size
    code = [("<f4", shape) for shape in ((size,), (size, size), (size,), (size, size), (size, 2 * size))]
    return [("<i8", (rows,)), *code, ("<u8", (2 * -(-size // 64), rows))]


def _offsets(start: int, shapes: list[tuple[str, tuple[int, ...]]]) -> Iterator[int]:
    """Where each array begins, and where the last one ends."""
    for dtype, shape in shapes:
        start += -start % ALIGN
        yield start
        start += np.dtype(dtype).itemsize * int(np.prod(shape))
    yield start + -start % ALIGN


def alone(vector_E: NDArray[np.float32], matrix_EF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Their product (F,), in this thread: a library that wakes others for it waits for them on a busy machine."""
    return np.einsum("e,ef->f", vector_E, matrix_EF)


def _border(differing_N: NDArray[np.uint16], count: int) -> int:
    """Up to how many differing bits about `count` vectors have; where they are many, as a part of them tells."""
    step = max(1, len(differing_N) // COUNTED)
    up_to = step * np.cumsum(np.bincount(differing_N[::step], minlength=OUT + 1)[:OUT])
    return int(np.searchsorted(up_to, count)) if up_to[-1] > count else OUT - 1


def _weighed(weights_E: NDArray[np.float32], words_WC: NDArray[np.uint64]) -> NDArray[np.float32]:
    """The sum of the weights of the bits that are 1 (C,), from tables of what each byte's eight come to."""
    weights_B8 = np.pad(weights_E, (0, 64 * len(words_WC) - len(weights_E))).reshape(-1, 8)
    tables_BV = np.einsum("bk,vk->bv", weights_B8, BYTES_V8)
    bytes_BC = np.ascontiguousarray(np.ascontiguousarray(words_WC.T).view(np.uint8).T)
    total_C = np.zeros(words_WC.shape[1], np.float32)
    for table_V, bytes_C in zip(tables_BV, bytes_BC, strict=True):
        total_C += table_V[bytes_C]
    return total_C


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
