"""What was tried: one JSON object a line, on the disk as each trial ends, and never tried again.

A trial is known by its name. The first line says what all of them depend on; trials of anything else are forgotten.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgeclip.config import Config
from edgeclip.errors import MALFORMED, ConfigError
from edgeclip.files import output_folder, write_atomically
from edgeclip.measure.child import ChildError

TRIALS = "trials.jsonl"


class TrialError(RuntimeError):
    """A trial that gives nothing; says why."""


class Trial(Config, frozen=True, kw_only=True):
    """One line: what a trial gave, or why it gave nothing."""

    name: str
    found: dict[str, Any] | None = None
    failed: str | None = None
    seconds: float = 0.0


def trials_folder(out: Path) -> Path:
    """Where the trials of a bundle are kept until its budget is met."""
    return out.with_name(f"{out.name}-trials")


def check_own(folder: Path) -> None:
    """Refuse a folder that is not one of trials.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        foreign = None if (folder / TRIALS).is_file() else next(folder.iterdir(), None)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        foreign = folder if folder.exists() else None  # else what it would lie in is a file
    if foreign is not None:
        raise ConfigError(
            f"{folder}, where trials are kept, with {foreign.name}",
            expected="nothing there, or an earlier run's trials",
            fix="move it away, or give another `out`",
        )


class Trials:
    """The trials of one search, in a folder that is theirs."""

    def __init__(self, folder: Path, depends_on: str) -> None:
        """Read what an earlier run has left, where it depends on the same.

        Raises:
            ConfigError: the folder holds something else.
        """
        check_own(folder)
        self.folder, self._path = output_folder(folder), folder / TRIALS
        first = Trial(name="depends on", found={"sha256": depends_on})
        lines = self._read()
        if not lines or lines[0] != first:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            lines = [first]
        self.done = {trial.name: trial for trial in lines}
        write_atomically(self._path, b"".join(msgspec.json.encode(trial) + b"\n" for trial in lines))  # no torn line

    def _read(self) -> list[Trial]:
        data = self._path.read_bytes() if self._path.is_file() else b""
        whole = [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
        try:
            return [msgspec.json.decode(line, type=Trial) for line in whole]
        except MALFORMED:
            return []

    def run(self, name: str, work: Callable[[], dict[str, Any]]) -> Trial:
        """What a trial gave before, else what `work` gives now.

        A process or a trial that failed is a recorded failure; other errors are raised, and not recorded.
        """
        if name in self.done:
            return self.done[name]
        start = time.perf_counter()
        try:
            found, failed = work(), None
        except (ChildError, TrialError) as error:
            found, failed = None, str(error)
        trial = Trial(name=name, found=found, failed=failed, seconds=round(time.perf_counter() - start, 3))
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(trial) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[name] = trial
        return trial

    @property
    def failures(self) -> list[Trial]:
        """Those that gave nothing."""
        return [trial for trial in self.done.values() if trial.failed is not None]
