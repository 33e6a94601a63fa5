"""metrics.jsonl: one line for each training step, written as it ends."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from edgeclip.config import Config
from edgeclip.errors import MALFORMED
from edgeclip.files import write_atomically


class StepMetrics(Config, frozen=True, kw_only=True):
    """One line. `parts` are the terms of the loss by name; `time` is in seconds since 1970.

    `images_per_second` counts the whole step, with the time that it waited for its images.
    """

    step: int
    loss: float
    parts: dict[str, float]
    lr: float
    images_per_second: float
    time: float


class MetricsLog:
    """Lines of finished steps, of which those after step `done` are dropped when it opens, and a torn last one too.

    Without a path nothing is written.
    """

    def __init__(self, path: Path | None, *, done: int) -> None:
        self._file: BinaryIO | None = None
        self._last = time.perf_counter()
        if path is not None:
            write_atomically(path, b"".join(_lines(path, done)))
            self._file = path.open("ab")

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, *, step: int, loss: float, parts: dict[str, float], lr: float, images: int) -> None:
        """Add the line of a step of so many images; it is with the system when this returns, and outlives us."""
        now = time.perf_counter()
        speed, self._last = round(images / (now - self._last), 1), now
        if self._file is not None:
            metrics = StepMetrics(
                step=step, loss=loss, parts=parts, lr=lr, images_per_second=speed, time=round(time.time(), 3)
            )
            self._file.write(msgspec.json.encode(metrics) + b"\n")
            self._file.flush()


def _lines(path: Path, done: int) -> list[bytes]:
    """The lines that still hold of an earlier run, up to the first that can't be read."""
    kept: list[bytes] = []
    if done and path.is_file():
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                step = msgspec.json.decode(line, type=StepMetrics).step
            except MALFORMED:
                break
            if step > done or not line.endswith(b"\n"):
                break
            kept.append(line)
    return kept
