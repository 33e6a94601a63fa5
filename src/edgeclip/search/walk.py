"""The pictures of folders, as an index wants them: without what photo programs and systems keep beside them.

A folder that can't be read is told of instead of ending the walk: the disk may only be away.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from edgeclip.bulk.listing import image_suffixes
from edgeclip.image.extras import SUFFIXES

LEFT_OUT = frozenset(
    ("@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "lost+found", "node_modules", "__macosx", "trash"),
) | {"system volume information"}
"""Folders of NAS systems, of trash and of programs, in lower case; hidden ones are left out anyway."""
NO_MEDIA = (".nomedia", ".edgeclipignore")
"""Files that keep their folder, and those in it, out of an index."""
RAW = SUFFIXES["RAW"]
DEVELOPED = {".jpg", ".jpeg"} | SUFFIXES["HEIF"]
"""Suffixes of what a camera writes beside its raw files."""


class Walk:
    """The pictures below folders, each by its absolute path.

    Attributes:
        roots: what it was given.
        skipped: other files, by suffix, and linked folders.
        beside: how many raw files have their JPEG, or a HEIF that can be read, beside them.
        unreadable: folders that can't be read.
    """

    def __init__(self, roots: Sequence[str], exclude: Sequence[str]) -> None:
        """Iterating walks.

        Args:
            roots: folders, and files whatever their suffix.
            exclude: patterns (`fnmatch`) of names, and of paths relative to their root, of files and folders.
        """
        self.roots, self._exclude = roots, exclude
        self.skipped: Counter[str] = Counter()
        self.beside = 0
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for root in self.roots:
            if os.path.isdir(root):  # noqa: PTH112 - any bytes may be its name
                yield from self._below(root)
            elif os.path.lexists(root):
                yield root
            else:
                self.unreadable.append(root)

    def _below(self, root: str) -> Iterator[str]:
        for folder, subfolders, names in os.walk(root, onerror=self._note):
            if any(mark in names for mark in NO_MEDIA):
                subfolders.clear()
                continue
            subfolders[:] = sorted(name for name in subfolders if self._is_wanted_folder(root, folder, name))
            self.skipped["linked folder"] += sum(Path(folder, name).is_symlink() for name in subfolders)
            yield from self._pictures(root, folder, sorted(names))

    def _note(self, error: OSError) -> None:
        self.unreadable.append(str(error.filename))

    def _is_wanted_folder(self, root: str, folder: str, name: str) -> bool:
        return not (name.startswith(".") or name.lower() in LEFT_OUT or self._is_excluded(root, folder, name))

    def _is_excluded(self, root: str, folder: str, name: str) -> bool:
        if not self._exclude:
            return False
        place = os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118
        return any(fnmatch(name, pattern) or fnmatch(place, pattern) for pattern in self._exclude)

    def _pictures(self, root: str, folder: str, names: list[str]) -> Iterator[str]:
        developed = DEVELOPED & image_suffixes()
        stems = {stem.lower() for stem, suffix in map(os.path.splitext, names) if suffix.lower() in developed}
        for name in names:
            if name.startswith(".") or self._is_excluded(root, folder, name):
                continue
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a million times
            if suffix.lower() in RAW and stem.lower() in stems:
                self.beside += 1
            elif suffix.lower() in image_suffixes():
                yield os.path.join(folder, name)  # noqa: PTH118
            else:
                self.skipped[suffix.lower() or "without suffix"] += 1


def is_gone(path: str) -> bool:
    """Whether there is surely no such file; one that can't be looked at may be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
