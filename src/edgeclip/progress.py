"""Progress of long work on stderr: bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance: TypeAlias = Callable[..., None]
"""Call as advance(n) when n more items are done, and with note="..." to say something beside the bar."""


@contextmanager
def stage(description: str, total: int) -> Iterator[Advance]:
    """Show one stage of `total` items while the block runs."""
    if not sys.stderr.isatty():
        yield from _plain(description)
        return
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
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


def _plain(description: str) -> Iterator[Advance]:
    start = time.perf_counter()
    yield lambda n=1, note=None: None
    print(f"{description}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
