"""Where the images lie that a table or an annotations file names."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)


class ImageFolders:
    """Finds each image by name in whichever of some folders has it. Each folder is listed once: asking for every file
    takes long where there are many.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Look in `folders`, in this order; the first of them is where an image would be that none has."""
        self._folders = folders
        self._names: dict[Path, frozenset[str]] = {}
        self._missing: list[str] = []
        self._asked = 0

    def find(self, *names: str) -> Path:
        """The path of an image by one of its names; where there is none, reading it will tell."""
        self._asked += 1
        paths = [folder / name for name in names for folder in self._folders]
        for path in paths:
            if path.name in self._names_in(path.parent):
                return path
        self._missing.append(names[0])
        return paths[0]

    def _names_in(self, folder: Path) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))  # noqa: PTH208 - names are wanted, not paths
            except (OSError, ValueError):  # no folder, or no path at all
                self._names[folder] = frozenset()
        return self._names[folder]

    def tell_missing(self, source: str) -> None:
        """Log how many images were not found."""
        if self._missing:
            logger.warning(
                "%s: %d of %d images are not there (first: %s)",
                source,
                len(self._missing),
                self._asked,
                self._missing[0],
            )
