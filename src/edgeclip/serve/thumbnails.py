"""Smaller copies of indexed pictures, kept in a folder beside the index; the folder may be removed at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress

from edgeclip.files import printable, write_atomically
from edgeclip.image.small import small_jpeg
from edgeclip.search.index import Index
from edgeclip.search.kept_thumbnails import SIDE, folder_of, name_of
from edgeclip.search.rows import Photo
from edgeclip.serve.problems import NotFoundError

SIDES = {"thumbnail": SIDE, "preview": 1600}
"""Pixels of the longer side. Previews, of which few are looked at, are not kept."""
ROOTS_SECONDS = 30
"""How old the list of indexed folders may be."""


class Thumbnails:
    """Of one index. Threads may share it."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._folder = folder_of(index.path)
        self._roots: tuple[float, Sequence[str]] = (-ROOTS_SECONDS, ())

    def of(self, photo: Photo, size: str) -> bytes:
        """A JPEG of a picture that is where it was indexed.

        Raises:
            NotFoundError: it is gone, or its name leads out of the indexed folders by now.
            ImageError: it can't be decoded any more.
        """
        path = photo.path
        try:
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - names of any bytes
            is_inside = os.path.realpath(path) == path and self._is_indexed(path)
        except OSError:
            is_inside = False
        if not is_inside:
            raise NotFoundError(
                f"{printable(path)}, which is not there", expected="an indexed picture", fix="run edgeclip index again"
            )
        if size != "thumbnail":
            return small_jpeg(path, SIDES[size])
        kept = self._folder / name_of(path, status.st_size, status.st_mtime_ns)
        with suppress(OSError):
            return kept.read_bytes()
        data = small_jpeg(path, SIDES[size])
        with suppress(OSError):  # a folder that can't be written to, a full disk
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_atomically(kept, data)
        return data

    def _is_indexed(self, path: str) -> bool:
        read, roots = self._roots
        if time.monotonic() - read > ROOTS_SECONDS:
            roots = [os.path.join(root, "") for root in self._index.status().roots]  # noqa: PTH118
            self._roots = time.monotonic(), roots
        return any(path.startswith(root) or path == root[:-1] for root in roots)
