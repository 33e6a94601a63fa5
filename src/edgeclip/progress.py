"""Progress of long work on stderr: bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

Advance: TypeAlias = Callable[..., None]
"""Call as advance(n) when n more items are done, and with note="..." to say something beside the bar."""


class _Rate(ProgressColumn):
    """Items a second."""

    def __init__(self, unit: str) -> None:
        super().__init__(Column(no_wrap=True))
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The text beside the bar, once there is something to tell."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else "")


@contextmanager
def stage(description: str, total: int | None, *, unit: str | None = None) -> Iterator[Advance]:
    """Show one stage of `total` items, None where that isn't known, while the block runs; with a unit also its rate."""
    if not sys.stderr.isatty():
        yield from _plain(description, unit)
        return
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        *([_Rate(unit)] if unit else []),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(n: int = 1, note: str | None = None) -> None:
            progress.advance(task, n)
            if note is not None:
                progress.update(task, note=note)

        yield advance


def _plain(description: str, unit: str | None) -> Iterator[Advance]:
    start, done = time.perf_counter(), 0

    def advance(n: int = 1, note: str | None = None) -> None:
        nonlocal done
        done += n

    yield advance
    seconds = time.perf_counter() - start
    rate = f", {done} {unit}, {done / seconds:.1f} {unit}/s" if unit else ""
    print(f"{description}: {seconds:.1f} s{rate}", file=sys.stderr, flush=True)
