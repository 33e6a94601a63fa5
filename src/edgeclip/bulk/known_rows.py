"""Which items of a list have a row already: texts by their words, files by their place and state."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edgeclip.bulk.file_state import FileState, hashed, state_of
from edgeclip.bulk.path_names import path_from_text, path_to_text
from edgeclip.runtime.stream import Flush

UNKNOWN = FileState(-1, 0)
"""Of a file that came only after it was looked for: the next run finds it changed."""


class TextRows:
    """Rows of texts. A text that comes several times has as many rows, so that the rows are the lines of a list."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._there = Counter(texts)

    def missing(self, texts: Iterable[str | Flush]) -> Iterator[str | Flush]:
        """Those that have no row yet, in order."""
        for text in texts:
            if not isinstance(text, Flush) and self._there[text] > 0:
                self._there[text] -= 1
            else:
                yield text


class FileRows:
    """Rows of files, one for each, called by their place relative to a root.

    However a folder is named on the command line, its files have the same names here; a linked file has its own.

    Attributes:
        outdated: rows of files that have another row since, or have changed.
        touched: rows of files whose date alone is another one, with their present state.
        changed: how many files got a row in place of an older one.
        repeated: how often a file was named that had been named before.
        gone: names of the rows' files that are no longer there.
    """

    def __init__(self, root: Path, names: Sequence[str], states: Sequence[FileState | None]) -> None:
        self._root, self._states = root, states
        self._row_of: dict[str, int] = {}
        self._named: set[str] = set()
        self._begun: dict[str, tuple[str, FileState]] = {}
        self._places: dict[str, str] = {}
        self.outdated: set[int] = set()
        self.touched: dict[int, FileState] = {}
        self.gone: list[str] = []
        self.changed = self.repeated = 0
        for row, name in enumerate(names):
            if name in self._row_of:
                self.outdated.add(self._row_of[name])
            self._row_of[name] = row

    def missing(self, paths: Iterable[str | Flush]) -> Iterator[str | Flush]:
        """Those without a row of their present content, in order; those that aren't there too, for reading to tell."""
        for path in paths:
            if isinstance(path, Flush) or (state := state_of(path)) is None:
                yield path
                continue
            name = self._name(path)
            if name in self._named:
                self.repeated += 1
                continue
            self._named.add(name)
            row = self._row_of.get(name)
            if row is not None:
                state, is_same = self._compared(path, state, row)
                if is_same:
                    continue
                self.outdated.add(row)
            self._begun[path] = name, state
            yield path

    def _name(self, path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in self._places:
            self._places[folder] = os.path.relpath(os.path.realpath(folder or "."), self._root)
        return path_to_text(os.path.normpath(os.path.join(self._places[folder], name)))  # noqa: PTH118

    def _compared(self, path: str, state: FileState, row: int) -> tuple[FileState, bool]:
        """The state of a file as far as it had to be found out, and whether its content is that of a row."""
        known = self._states[row]
        if known is None or known.size != state.size:
            return state, False
        if known.mtime_ns == state.mtime_ns:
            return state, True
        state = hashed(path, state)
        is_same = state.sha256 is not None and state.sha256 == known.sha256
        if is_same:
            self.touched[row] = state
        return state, is_same

    def entry(self, path: str) -> tuple[str, FileState]:
        """What is written of a file that `missing` has given: its name, and the state it had before it was read."""
        name, state = self._begun.pop(path) if path in self._begun else (self._name(path), UNKNOWN)
        self.changed += name in self._row_of
        return name, state

    def settle(self, *, prune: bool) -> None:
        """Note which rows are of files that are no longer there, once all files were named; `prune` outdates them."""
        for name, row in self._row_of.items():
            if name not in self._named and not is_there(self._root, name):
                self.gone.append(name)
                if prune:
                    self.outdated.add(row)


def is_there(root: Path, name: str) -> bool:
    """Whether there is a file of this name."""
    return os.path.exists(os.path.join(root, path_from_text(name)))  # noqa: PTH110, PTH118 - a million times
