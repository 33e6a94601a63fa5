"""Text embeddings kept on disk, so that prompts seen before don't need the text graph.

Shape legend: E embedding size.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

MAX_TEXTS = 16_384
"""Texts of one bundle that are kept, the newest: 34 MB at E = 512."""
MAX_BUNDLES = 8
"""Bundles whose texts are kept, the last written to."""
LOCK_SECONDS = 10
"""How long to wait for another process that writes."""
_DIGEST_BYTES = 16
_TABLE = """
CREATE TABLE IF NOT EXISTS prompts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, bundle BLOB NOT NULL, text BLOB NOT NULL, embeds BLOB NOT NULL,
    checksum BLOB NOT NULL, UNIQUE (bundle, text) ON CONFLICT REPLACE
)
"""
_DROP_TEXTS = """
DELETE FROM prompts WHERE bundle = ?1 AND number <= (
    SELECT number FROM prompts WHERE bundle = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2
)
"""
_DROP_BUNDLES = """
DELETE FROM prompts WHERE bundle NOT IN (
    SELECT bundle FROM prompts GROUP BY bundle ORDER BY MAX(number) DESC LIMIT ?
)
"""


USUAL_CACHE = Path("~/.cache/edgeclip")
"""Stands for `cache_folder()`."""
NOWHERE = Path(os.devnull) / "edgeclip"
"""A place that keeps nothing."""


def cache_folder() -> Path:
    """XDG_CACHE_HOME/edgeclip, or ~/.cache/edgeclip; where there is no home, a place that keeps nothing."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeclip"
    except RuntimeError:  # a container's user without an entry, a service without HOME: prompts stay in memory
        return NOWHERE


class PromptCache:
    """Embeddings by text, of one bundle on one version of ONNX Runtime. Safe with several threads and processes.

    They are rows of an SQLite file that all bundles share: a BLAKE2b hash of the text and E float32, with a checksum
    that covers the bundle's fingerprint too, since SQLite has none. A row that doesn't match is as good as none; a file
    that is no database is written anew. Where the folder can't be written to they stay in memory.
    """

    def __init__(self, folder: Path, fingerprint: str, embedding_size: int) -> None:
        self._bundle = hashlib.sha256(f"{fingerprint} {onnxruntime.__version__}".encode()).digest()
        self._path = folder / "prompts.sqlite"
        self._embedding_size = embedding_size
        self._lock = threading.Lock()
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def get(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The embeddings (E,) of those texts that are known."""
        wanted = {text: _digest(text) for text in texts}
        with self._lock:
            missing = sorted(set(wanted.values()) - set(self._known))
            if missing and os.path.isfile(self._path):  # noqa: PTH113 - which no name is too long for
                self._known |= self._read(missing)
            return {text: self._known[digest] for text, digest in wanted.items() if digest in self._known}

    def put(self, embeds: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the embeddings of more texts."""
        rows = {_digest(text): np.ascontiguousarray(row, "<f4") for text, row in embeds.items()}
        with self._lock:
            self._known |= rows
            self._known = dict(list(self._known.items())[-MAX_TEXTS:])
            try:
                self._write(rows)
            except (OSError, sqlite3.OperationalError):
                pass  # a cache: on a read-only system the text graph does the work
            except sqlite3.DatabaseError:  # damaged, or another program's
                with suppress(OSError, sqlite3.Error):
                    self._path.unlink(missing_ok=True)
                    self._write(rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS)) as connection, connection:
            yield connection

    def _read(self, digests: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        found: dict[bytes, NDArray[np.float32]] = {}
        try:
            with self._opened() as connection:
                for digest in digests:
                    query = "SELECT embeds, checksum FROM prompts WHERE bundle = ? AND text = ?"
                    row = connection.execute(query, (self._bundle, digest)).fetchone()
                    if row and len(row[0]) == 4 * self._embedding_size and row[1] == self._checksum(digest, row[0]):
                        found[digest] = np.frombuffer(row[0], "<f4")
        except sqlite3.Error:  # unreadable, damaged or locked for long: the text graph does the work
            return {}
        return found

    def _write(self, rows: Mapping[bytes, NDArray[np.float32]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as connection:
            connection.execute(_TABLE)
            connection.executemany(
                "INSERT INTO prompts (bundle, text, embeds, checksum) VALUES (?, ?, ?, ?)",
                (
                    (self._bundle, digest, row.tobytes(), self._checksum(digest, row.tobytes()))
                    for digest, row in rows.items()
                ),
            )
            connection.execute(_DROP_TEXTS, (self._bundle, MAX_TEXTS))
            connection.execute(_DROP_BUNDLES, (MAX_BUNDLES,))

    def _checksum(self, digest: bytes, embeds: bytes) -> bytes:
        return hashlib.blake2b(self._bundle + digest + embeds, digest_size=_DIGEST_BYTES).digest()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
