"""Text embeddings kept on disk, so that prompts seen before don't need the text graph.

Shape legend: E embedding size.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeclip.files import write_atomically

MAX_TEXTS = 16_384
"""Texts of one bundle that are kept, the newest: 34 MB at E = 512."""
MAX_BUNDLES = 8
"""Bundles whose texts are kept, the last written to."""
_DIGEST_BYTES = 16
_CHECKSUM_BYTES = 32


def cache_folder() -> Path:
    """XDG_CACHE_HOME/edgeclip, or ~/.cache/edgeclip; where there is no home, a place that keeps nothing."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeclip"
    except RuntimeError:  # a container's user without an entry, a service without HOME: prompts stay in memory
        return Path(os.devnull) / "edgeclip"


class PromptBank:
    """Embeddings by text, of one bundle on one version of ONNX Runtime. Safe with several threads and processes.

    A file is a SHA-256 checksum and then a record for each text: 16 bytes of the text's BLAKE2b hash, E float32. The
    checksum covers the bundle's fingerprint too. A file that doesn't match is as good as none and is written anew.
    Processes that write at the same time replace each other's file whole; what one has lost is encoded again.
    """

    def __init__(self, folder: Path, fingerprint: str, embedding_size: int) -> None:
        self._key = hashlib.sha256(f"{fingerprint} {onnxruntime.__version__}".encode()).digest()
        self._path = folder / "prompts" / f"{self._key.hex()[:32]}.bin"
        self._records = np.dtype([("text", f"V{_DIGEST_BYTES}"), ("embeds", "<f4", (embedding_size,))])
        self._lock = threading.Lock()
        self._known: dict[bytes, NDArray[np.float32]] | None = None

    def get(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The embeddings (E,) of those texts that are known."""
        with self._lock:
            if self._known is None:
                self._known = self._read()
            found = {text: self._known.get(_digest(text)) for text in texts}
        return {text: embeds for text, embeds in found.items() if embeds is not None}

    def put(self, embeds: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the embeddings of more texts; where the folder can't be written to, in memory only."""
        with self._lock:
            merged = self._read() | {_digest(text): row for text, row in embeds.items()}
            self._known = dict(list(merged.items())[-MAX_TEXTS:])
            with contextlib.suppress(OSError):  # a cache: on a read-only system the text graph does the work
                self._write(self._known)

    def _read(self) -> dict[bytes, NDArray[np.float32]]:
        try:
            data = self._path.read_bytes()
        except OSError:
            return {}
        checksum, body = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
        if checksum != hashlib.sha256(self._key + body).digest() or len(body) % self._records.itemsize:
            return {}
        records = np.frombuffer(body, self._records)
        return dict(zip(records["text"].tolist(), records["embeds"], strict=True))

    def _write(self, known: dict[bytes, NDArray[np.float32]]) -> None:
        records = np.empty(len(known), self._records)
        records["text"] = np.frombuffer(b"".join(known), f"V{_DIGEST_BYTES}")
        records["embeds"] = np.stack(list(known.values()))
        body = records.tobytes()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, hashlib.sha256(self._key + body).digest() + body)
        newest_first = sorted(self._path.parent.glob("*.bin"), key=lambda path: -path.stat().st_mtime)
        for path in newest_first[MAX_BUNDLES:]:
            path.unlink(missing_ok=True)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
