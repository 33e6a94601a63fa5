"""The nearest vectors of an index: candidates by their bits, then every candidate's cosine from float16.

Measured at 1,000,000 CLIP-like vectors by `benchmarks/search.py`. What is not in the bits yet, at most `MAX_TAIL`
vectors and so all of a small index, is in memory and scored at once.

Shape legend: N vectors, E embedding size, K candidates.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclip.search import sign_bits
from edgeclip.search.database import Database
from edgeclip.search.sign_bits import Code, SignBits, alone

logger = logging.getLogger(__name__)

SHORTLIST = 500
"""Candidates of the bits. Measured: 1.000 of the exact ten for images and 0.99 for texts."""
MAX_TAIL = 10_000
SAMPLED, BLOCK = 16_384, 16_384
"""Vectors that stand for all where the bits are chosen, and those that are converted at once."""
DTYPE, ROUNDED = "<f2", 0.01
"""Of vectors in the database; and how much the square of one's length may differ from 1, far more than by rounding."""
IN_ONE_QUERY = 500
"""Below the 999 values of older SQLites."""


class Scan:
    """Searches the vectors of a database; threads may share one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._size = database.meta.embedding_size
        self._lock = threading.Lock()
        self._bits: SignBits | None = None
        self._tail = self._no_rows()
        self._newest = 0
        self._uuid = database.meta.uuid

    @property
    def path(self) -> Path:
        """The file of the bits."""
        return bits_path(self._database.path)

    def nearest(
        self,
        query_E: NDArray[np.float32],
        count: int,
        among: Collection[int] | None = None,
        *,
        is_picture: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids (K,) and vectors (K, E) of at least `count` nearest, the nearest first, where there are so many.

        Args:
            query_E: unit vector.
            count: how many.
            among: ids that may be; None for all.
            is_picture: whether the query is a picture's vector, and no text's.
        """
        bits, (ids_K, embeds_KE) = self._current()
        count = max(count, SHORTLIST)
        if among is not None and len(among) <= count:
            ids_K, embeds_KE = self.vectors(sorted(among))
        else:
            allowed = None if among is None else np.fromiter(sorted(among), np.int64, len(among))
            if allowed is not None:
                is_in = np.isin(ids_K, allowed)
                ids_K, embeds_KE = ids_K[is_in], embeds_KE[is_in]
            if bits is not None:
                among_N = None if allowed is None else np.isin(bits.ids_N, allowed)
                near = bits.nearest(query_E, count, is_picture=is_picture, among_N=among_N)
                found = self.vectors(near.tolist())
                ids_K, embeds_KE = np.concatenate([found[0], ids_K]), np.concatenate([found[1], embeds_KE])
        scores_K = alone(query_E, embeds_KE.T)
        best = np.argsort(-scores_K, kind="stable")[:count]
        return ids_K[best], embeds_KE[best]

    def vectors(self, ids: list[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Those of these ids that are there still, as float32."""
        rows = []
        for start in range(0, len(ids), IN_ONE_QUERY):
            part = ids[start : start + IN_ONE_QUERY]
            places = ", ".join("?" * len(part))
            rows += self._rows(f"WHERE id IN ({places})", tuple(part))
        return self._arrays(rows)

    def vector(self, id_: int) -> NDArray[np.float32]:
        """That of an id (1, E).

        Raises:
            DataError: there is none, though a row has it.
        """
        embeds_1E = self.vectors([id_])[1]
        if not len(embeds_1E):
            raise self._database.damaged(f"no vector {id_}")
        return embeds_1E

    def at(self, ids_K: NDArray[np.int64]) -> NDArray[np.float32]:
        """Those of ascending ids (K, E); NaN where one is gone."""
        found, embeds = self.vectors(ids_K.tolist())
        embeds_KE = np.full((len(ids_K), self._size), np.nan, np.float32)
        embeds_KE[np.searchsorted(ids_K, found)] = embeds
        return embeds_KE

    def sample(self, count: int) -> NDArray[np.float32]:
        """Vectors (S, E), evenly spaced, at most so many."""
        ids = self.ids()
        return self.vectors(ids[:: max(1, -(-len(ids) // count))])[1]

    def best(self, query_E: NDArray[np.float32]) -> float:
        """The largest cosine with a text's vector."""
        return float((self.nearest(query_E, 1, is_picture=False)[1] @ query_E).max())

    def refresh(self) -> None:
        """Put all vectors into the bits, where they are more than are in memory anyway."""
        with self._lock:
            self._forget()
            self.path.unlink(missing_ok=True)
        self._current()

    def _forget(self) -> None:
        self._bits, self._tail, self._newest, self._uuid = None, self._no_rows(), 0, self._database.meta.uuid

    def ids(self) -> list[int]:
        """Those of all vectors, ascending."""
        return [id_ for (id_,) in self._database.rows("SELECT id FROM vectors ORDER BY id")]

    def _current(self) -> tuple[SignBits | None, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """The bits, and the vectors that came since."""
        self._database.follow()
        with self._lock:
            if self._uuid != self._database.meta.uuid:
                self._forget()
            newest = self._database.rows("SELECT max(id) FROM vectors")[0][0] or 0
            if self._bits is None and not self._newest:
                self._bits = sign_bits.read(self.path, self._database.meta.uuid, self._size)
            if newest != self._newest:
                self._read_tail()
                self._newest = newest
            return self._bits, self._tail

    def _read_tail(self) -> None:
        last = int(self._bits.ids_N[-1]) if self._bits is not None else 0
        if self._database.rows("SELECT count(*) FROM vectors WHERE id > ?", (last,))[0][0] > MAX_TAIL:
            self._bits, self._tail = self._new_bits(), self._no_rows()
            try:
                self._bits.write(self.path, self._database.meta.uuid)
            except OSError as error:
                logger.info("%s can't be written (%s): the next search computes it again", self.path, error.strerror)
        else:
            self._tail = self._arrays(self._rows("WHERE id > ? ORDER BY id", (last,)))

    def _new_bits(self) -> SignBits:
        """The bits of all vectors, of which few are in memory at once."""
        ids, code = self.ids(), Code.of(self.sample(SAMPLED))
        words = []
        for start in range(0, len(ids), BLOCK):
            part = ids[start : start + BLOCK]
            rows = self._rows("WHERE id BETWEEN ? AND ? ORDER BY id", (part[0], part[-1]))
            words.append(code.words(self._arrays(rows)[1]))
        return SignBits(np.array(ids, np.int64), code, np.concatenate(words).T.copy())

    def _rows(self, which: str, values: tuple[Any, ...]) -> list[tuple[int, bytes]]:
        query = f"SELECT id, embedding FROM vectors {which}"  # noqa: S608
        return self._database.rows(query, values, of=tuple[int, bytes])

    def _arrays(self, rows: list[tuple[int, bytes]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids (N,) and vectors (N, E).

        Raises:
            DataError: one is of another size, or no unit vector.
        """
        size = np.dtype(DTYPE).itemsize * self._size
        wrong = next((id_ for id_, embeds in rows if len(embeds) != size), None)
        if wrong is not None:
            raise self._database.damaged(f"the vector {wrong} is of another size")
        ids_N = np.array([id_ for id_, _ in rows], np.int64)
        embeds_NE = np.frombuffer(b"".join(embeds for _, embeds in rows), DTYPE).reshape(-1, self._size)
        embeds_NE = embeds_NE.astype(np.float32)
        is_unit_N = are_units(embeds_NE)
        if not is_unit_N.all():
            raise self._database.damaged(f"the vector {ids_N[~is_unit_N][0]} is none that a model gives")
        return ids_N, embeds_NE

    def _no_rows(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._arrays([])


def are_units(vectors_NE: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of them have the length 1 (N,)."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(np.einsum("ne,ne->n", vectors_NE, vectors_NE) - 1) < ROUNDED


def bits_path(database: Path) -> Path:
    """The file of the bits of a database."""
    return database.with_name(f"{database.name}.bits")
