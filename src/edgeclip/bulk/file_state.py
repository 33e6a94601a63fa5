"""What tells whether a file is still the one that was read."""

from __future__ import annotations

import hashlib
import os

import msgspec

BLOCK_BYTES = 1 << 20


class FileState(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Size in bytes, date of the last change in nanoseconds since 1970, and where it was needed the content's SHA-256.

    The content is read where size and date leave a doubt, and not before: it takes as long as decoding a small picture.
    """

    size: int
    mtime_ns: int
    sha256: str | None = None


def state_of(path: str) -> FileState | None:
    """Size and date of a file, None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a million times
    except (OSError, ValueError):
        return None
    return FileState(status.st_size, status.st_mtime_ns)


def hashed(path: str, state: FileState) -> FileState:
    """The same state with the content's SHA-256; without it where the file can't be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - any bytes may be its name
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return state
    return msgspec.structs.replace(state, sha256=digest.hexdigest())
