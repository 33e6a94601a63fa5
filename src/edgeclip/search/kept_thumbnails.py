"""Where a server keeps the smaller copies of indexed pictures that it has made: a folder beside the index, which may be
removed at any time.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from edgeclip.files import remove_leftovers
from edgeclip.image.small import QUALITY
from edgeclip.search.database import Database

SIDE = 400
"""Pixels of the longer side."""
SUFFIX = ".jpg"


def folder_of(database: Path) -> Path:
    """The folder beside an index."""
    return database.with_name(f"{database.name}.thumbnails")


def name_of(path: str, size: int, mtime_ns: int) -> str:
    """The name of a picture's copy, of the picture as it was then."""
    version = f"{size} {mtime_ns} {SIDE} {QUALITY}"
    return hashlib.sha256(os.fsencode(path) + version.encode()).hexdigest()[:40] + SUFFIX


def remove_unused(database: Database) -> None:
    """Remove the copies of pictures that are not indexed any more, or not as they were."""
    folder = folder_of(database.path)
    if not folder.is_dir():
        return
    remove_leftovers(folder)
    rows = database.rows("SELECT path, size, mtime_ns FROM photos", of=tuple[str, int, int])
    used = {name_of(database.path_of(path), size, date) for path, size, date in rows}
    with suppress(OSError):  # a folder that can't be written to
        for kept in folder.iterdir():
            if kept.suffix == SUFFIX and kept.name not in used:
                kept.unlink(missing_ok=True)
