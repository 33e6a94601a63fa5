"""Hashes of large files, kept on disk while the files stay as they are: a model of 600 MB takes a second to read."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import msgspec

from edgeclip.bundle import file_entry
from edgeclip.errors import MALFORMED, BundleError
from edgeclip.files import read_whole, write_atomically
from edgeclip.manifest import FileEntry

MIN_BYTES = 16 << 20
"""A smaller file is hashed in less time than it is worth."""


def entry_of(path: Path, cache: Path | None) -> FileEntry:
    """A file's hash and size.

    What is kept is found by the file's place, size, inode and the times when content and inode were changed: whoever
    writes to a file changes the last, which no program can set.

    Args:
        path: the file.
        cache: the folder of all that is kept; None keeps nothing.

    Raises:
        BundleError: it can't be read, or changes meanwhile.
    """
    try:
        before = _state(path)
        known = None if cache is None or before[2] < MIN_BYTES else cache / "hashes" / _name(path, before)
        if known is not None and (entry := _read(known)) is not None:
            return entry
        entry, after = file_entry(path), _state(path)
    except OSError as error:
        raise BundleError(
            f"{path} ({error.strerror})", expected="a file that can be read", fix="copy it again"
        ) from error
    if before != after:
        raise BundleError(f"{path}, which is being written", expected="a finished file", fix="load it again later")
    if known is not None:
        with suppress(OSError):  # a cache: next time it is read again
            known.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(known, msgspec.json.encode(entry))
    return entry


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _name(path: Path, state: tuple[int, ...]) -> str:
    return hashlib.sha256(f"{path.resolve()} {state}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read(path: Path) -> FileEntry | None:
    try:
        return msgspec.json.decode(read_whole(path), type=FileEntry)
    except (OSError, *MALFORMED):
        return None
