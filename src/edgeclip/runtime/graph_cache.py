"""Graphs as ONNX Runtime has opened them, kept on disk: the next process maps them instead of making them again.

What is kept is the optimised graph and, in a file of their own, its weights as the processor's kernels want them: pages
that processes share and that the system may drop.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import onnxruntime

from edgeclip.bundle import is_unchanged
from edgeclip.config import Config
from edgeclip.cpu import cpu_flags
from edgeclip.errors import MALFORMED
from edgeclip.files import flush, own_part, read_whole, remove_leftovers
from edgeclip.manifest import FileEntry
from edgeclip.runtime.session import KEPT_GRAPH, KEPT_WEIGHTS, RUNTIME_ERRORS, open_graph

FORMAT = 2
"""Counts up whenever what is kept, or how it is opened, changes."""
MIN_BYTES = 16 << 20
"""A smaller graph is opened from its bundle in less time than it is worth."""
MAX_BYTES = 4 << 30
"""Of all graphs in a cache; the least recently used go first."""
ROOM = 4
"""Times a graph's size that the disk must have free: packed weights take up to twice as much."""
SEAL = "seal.json"

logger = logging.getLogger(__name__)


class _Seal(Config, frozen=True, kw_only=True):
    """What the file system says of the two files: inode, size, and when content and inode were changed, in ns.

    Whoever writes to a file changes the last, which no program can set.
    """

    files: dict[str, tuple[int, int, int, int]]


@dataclass(frozen=True)
class GraphCache:
    """A cache's folder. Whatever is wrong with it, graphs are opened from their bundle, and made anew in it."""

    folder: Path

    def open(
        self, graph: Path, threads: int, *, entry: FileEntry, precise: bool = False
    ) -> onnxruntime.InferenceSession:
        """Open a graph from the cache, or from its bundle and into the cache.

        Args:
            graph: the bundle's file.
            threads: of the session.
            entry: the file's hash and size by the manifest.
            precise: see `session_options`.

        Raises:
            RUNTIME_ERRORS: the bundle's file is damaged.
        """
        opened = partial(open_graph, threads=threads, precise=precise)
        if entry.bytes < MIN_BYTES:
            return opened(graph)
        place = self.folder / _key(entry, precise)
        if _is_sealed(place):
            try:
                return opened(place / KEPT_GRAPH)
            except RUNTIME_ERRORS as error:
                logger.debug("%s is made anew: %s", place, error)
        # An intact copy of the bundle has the same key: a graph that was changed must not be kept under it.
        if (temporary := self._room_for(entry) if is_unchanged(graph, entry) else None) is None:
            return opened(graph)
        try:
            opened(graph, keep_in=temporary)
            self._put(temporary, place)
            return opened(place / KEPT_GRAPH)  # whose weights are the file's pages, not this process's own
        except (OSError, *RUNTIME_ERRORS) as error:  # the disk's fault, or the graph's, which is raised from here
            logger.debug("no graph is kept in %s: %s", self.folder, error)
            return opened(graph)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _room_for(self, entry: FileEntry) -> Path | None:
        """A folder to write to, where the cache can be written to and has room."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            remove_leftovers(self.folder)
            if shutil.disk_usage(self.folder).free < ROOM * entry.bytes:
                return None
            temporary = own_part(self.folder / entry.sha256[:8])
            temporary.mkdir()
        except OSError as error:
            logger.debug("no graph is kept in %s: %s", self.folder, error)
            return None
        return temporary

    def _put(self, temporary: Path, place: Path) -> None:
        flush(temporary)
        files = {name: _state(temporary / name) for name in (KEPT_GRAPH, KEPT_WEIGHTS)}
        (temporary / SEAL).write_bytes(msgspec.json.encode(_Seal(files=files)))
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # another process was first, and its graph is as good
            temporary.rename(place)
        self._make_room(place)

    def _make_room(self, newest: Path) -> None:
        """Remove what was used least recently, until the rest fits."""
        places = [place for place in self.folder.iterdir() if (place / SEAL).is_file() and place != newest]
        places.sort(key=lambda place: (place / SEAL).stat().st_mtime_ns)
        sizes = {place: sum(file.stat().st_size for file in place.iterdir()) for place in (*places, newest)}
        while places and sum(sizes.values()) > MAX_BYTES:
            sizes.pop(places[0])
            shutil.rmtree(places.pop(0), ignore_errors=True)


def _key(entry: FileEntry, precise: bool) -> str:
    """What the packed weights depend on: the graph, the runtime, and the processor that chooses its kernels."""
    told = [str(FORMAT), entry.sha256, str(precise), onnxruntime.__version__, platform.machine(), *sorted(cpu_flags())]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:32]


def _is_sealed(place: Path) -> bool:
    """Whether a place's files are this user's, and as they were when they were made; that they are used is noted."""
    try:
        seal = msgspec.json.decode(read_whole(place / SEAL), type=_Seal)
        found = {name: _state(place / name) for name in (KEPT_GRAPH, KEPT_WEIGHTS)}
        is_own = not hasattr(os, "geteuid") or (place / KEPT_GRAPH).stat().st_uid == os.geteuid()
        os.utime(place / SEAL)
    except (OSError, *MALFORMED):
        return False
    return is_own and found == seal.files


def _state(path: Path) -> tuple[int, int, int, int]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
