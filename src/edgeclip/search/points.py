"""The points of a Qdrant collection: one for each indexed file, with its vector and what is known of it.

Several indexes, of several machines, may be in one collection: a point says which it is of. A point's id is the hash of
its payload: one that is there is right, and whatever has changed is another point.

Shape legend: K points, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from edgeclip.bulk.path_names import path_from_text, path_to_text
from edgeclip.errors import DataError
from edgeclip.search.filters import Filters, moment
from edgeclip.search.qdrant import Address, explained

KEYWORD, FLOAT = models.PayloadSchemaType.KEYWORD, models.PayloadSchemaType.FLOAT
INDEXED = {"source": KEYWORD, "fingerprint": KEYWORD, "folders": KEYWORD, "suffix": KEYWORD, "taken": FLOAT}
"""What points are looked for by."""
PAGE = 10_000
"""Ids of one answer."""
UNIT_LENGTH = (models.Distance.DOT, models.Distance.COSINE)
"""Which are the same for unit vectors."""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What a point says beside its vector; paths as `bulk.path_names` writes them.

    Attributes:
        path: absolute, on the machine that indexed it.
        size, mtime_ns: of the file.
        hash: SHA-256 of its content, in hexadecimal digits.
        taken: seconds since 1970.
        width, height: in pixels, upright.
        folders: all that it is in.
        suffix: in lower case, without the dot.
        fingerprint, bundle: of what made the vector, and where that was found.
        source: the index that it is of.
    """

    path: str
    size: int
    mtime_ns: int
    hash: str
    taken: float
    width: int
    height: int
    folders: list[str]
    suffix: str
    fingerprint: str
    bundle: str
    source: str

    @property
    def id(self) -> int:
        """The point's, 63 bits."""
        return int.from_bytes(blake2b(msgspec.json.encode(self), digest_size=8).digest(), "big") >> 1


def folders_of(path: str) -> list[str]:
    """All folders that a file is in, as text, the nearest first."""
    folders = []
    while (above := os.path.dirname(path)) != path:  # noqa: PTH120 - any bytes may be its name
        folders.append(path_to_text(above))
        path = above
    return folders


def suffix_of(path: str) -> str:
    """A file's suffix, as `Payload` has it."""
    return path_to_text(os.path.splitext(path)[1].lower().lstrip("."))  # noqa: PTH122


class Points:
    """The points of one collection; threads may share one."""

    def __init__(self, address: Address, client: QdrantClient) -> None:
        self.address, self._client, self._name = address, client, address.collection

    def make(self, embedding_size: int) -> None:
        """Make the collection where there is none.

        Raises:
            ConfigError, DataError: as for `qdrant.explained`, here and in all methods.
        """
        vectors = models.VectorParams(
            size=embedding_size, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16
        )
        with explained(self.address):
            if not self._client.collection_exists(self._name):
                self._client.create_collection(self._name, vectors_config=vectors)

    def index(self) -> None:
        """Have the server find points quickly by what they are looked for; done again, nothing changes."""
        with explained(self.address):
            for field, kind in INDEXED.items():
                self._client.create_payload_index(self._name, field, kind)

    def check(self, embedding_size: int, fingerprint: str) -> None:
        """Refuse a collection of other vectors than a bundle's.

        Raises:
            DataError: it is one.
        """
        with explained(self.address):
            vectors = self._client.get_collection(self._name).config.params.vectors
        if not isinstance(vectors, models.VectorParams) or vectors.distance not in UNIT_LENGTH:
            raise self._other("named vectors, or another distance than Dot and Cosine", "one unnamed vector a point")
        if vectors.size != embedding_size:
            raise self._other(f"vectors of {vectors.size}", f"{embedding_size}, the bundle's")
        others = models.Filter(must_not=[_is("fingerprint", fingerprint)])
        found = self._scroll(others, 1, None, payload=["fingerprint"])[0]
        if found:
            made_with = (found[0].payload or {}).get("fingerprint")
            raise self._other(f"points of the fingerprint {made_with}", f"{fingerprint} alone, the bundle's")

    def _other(self, got: str, expected: str) -> DataError:
        return DataError(
            f"{self.address}, which has {got}", expected=expected, fix="give another collection, or the bundle of this"
        )

    def any(self) -> Payload:
        """Some point's payload.

        Raises:
            DataError: there is no such collection, or no point in it.
        """
        with explained(self.address):
            there = self._client.collection_exists(self._name)
        found = self._scroll(models.Filter(), 1, None, payload=True)[0] if there else []
        if not found:
            raise DataError(
                f"{'an empty' if there else 'no'} collection {self.address}",
                expected="one that `edgeclip index` has written to",
                fix=f"use edgeclip index FOLDER --db PHOTOS.db --to {self.address}",
            )
        return self._payload(found[0].payload)

    def ids_of(self, source: str) -> set[int]:
        """The points of an index."""
        ids: set[int] = set()
        offset: models.ExtendedPointId | None = None
        while True:
            found, offset = self._scroll(models.Filter(must=[_is("source", source)]), PAGE, offset, payload=False)
            ids.update(point.id for point in found if isinstance(point.id, int))
            if offset is None:
                return ids

    def write(self, payloads: Sequence[Payload], embeds_KE: NDArray[np.float32]) -> None:
        """Have points; written again, nothing changes."""
        batch = models.Batch(
            ids=[payload.id for payload in payloads],
            vectors=embeds_KE.tolist(),
            payloads=[msgspec.to_builtins(payload) for payload in payloads],
        )
        with explained(self.address):
            self._client.upsert(self._name, batch, wait=True)

    def remove(self, ids: Sequence[int]) -> None:
        """Remove points; those that are gone already don't matter."""
        with explained(self.address):
            self._client.delete(self._name, models.PointIdsList(points=list(ids)), wait=True)

    def nearest(
        self, query_E: NDArray[np.float32], filters: Filters, count: int
    ) -> tuple[list[tuple[int, Payload]], NDArray[np.float32]]:
        """Ids and payloads of the nearest points, the nearest first, and their vectors (K, E)."""
        where = condition(filters)
        with explained(self.address):
            found = self._client.query_points(
                self._name,
                query=query_E.tolist(),
                query_filter=where,
                limit=count,
                with_payload=True,
                with_vectors=True,
            ).points
        embeds_KE = np.array([point.vector for point in found], np.float32).reshape(len(found), len(query_E))
        return [(int(point.id), self._payload(point.payload)) for point in found], embeds_KE

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _scroll(
        self,
        condition: models.Filter,
        limit: int,
        offset: models.ExtendedPointId | None,
        *,
        payload: bool | list[str],
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        with explained(self.address):
            found, after = self._client.scroll(
                self._name, scroll_filter=condition, limit=limit, offset=offset, with_payload=payload
            )
        return found, after

    def _payload(self, given: dict[str, object] | None) -> Payload:
        try:
            return msgspec.convert(given, Payload)
        except msgspec.ValidationError as error:
            raise self._other(f"points of another program ({error})", "those that `edgeclip index` writes") from error


def condition(filters: Filters) -> models.Filter | None:
    """What is true of points that may be found; None where all may be.

    Raises:
        ConfigError: a date that is none.
    """
    must: list[models.Condition] = []
    if filters.after is not None:
        must.append(models.FieldCondition(key="taken", range=models.Range(gte=moment("after", filters.after))))
    if filters.before is not None:
        must.append(models.FieldCondition(key="taken", range=models.Range(lt=moment("before", filters.before))))
    if filters.in_:
        must.append(_is_one_of("folders", [path_to_text(os.path.realpath(folder)) for folder in filters.in_]))
    if filters.ext:
        must.append(_is_one_of("suffix", [suffix.lower().lstrip(".") for suffix in filters.ext]))
    return models.Filter(must=must) if must else None


def _is(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _is_one_of(key: str, values: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=values))


def path_of(payload: Payload) -> str:
    """The file's path, as the operating system knows it."""
    return path_from_text(payload.path)
