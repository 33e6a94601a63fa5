"""What the command line shows on standard error of the library's progress and words; the library itself is silent."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import msgspec

from edgeclip.files import as_json
from edgeclip.progress import Advance, Observer, observe

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

LOGGER = logging.getLogger("edgeclip")


def open_streams() -> None:
    """Give a process output that takes anything: closed streams lead nowhere, and no character is too much.

    Where one is closed, the next file that is opened would get its number, and what C libraries print to it.
    """
    for number, name in enumerate(("", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
            if name:  # who reads from a closed standard input is told so
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.encoding.lower() not in ("utf-8", "utf8"):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_json(value: object) -> None:
    """Print a record as JSON, in UTF-8 whatever the terminal's encoding is."""
    _print_bytes(as_json(value))


def print_json_line(value: object) -> None:
    """Print a record as one line of JSON."""
    _print_bytes(msgspec.json.format(as_json(value), indent=-1).strip() + b"\n")


def _print_bytes(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def shown(*, quiet: bool, verbose: bool, log_json: bool) -> Iterator[None]:
    """Show progress and words until the block ends.

    Args:
        quiet: errors alone.
        verbose: details too.
        log_json: one JSON object a line instead of text and bars.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if log_json else logging.Formatter("%(message)s"))
    LOGGER.addHandler(handler)
    before = LOGGER.level, LOGGER.propagate
    LOGGER.propagate = False  # libraries give the root logger handlers of their own
    LOGGER.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    try:
        with observe(Lines() if quiet or log_json or not _is_terminal() else Bars()):
            yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.level, LOGGER.propagate = before


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class _JsonLines(logging.Formatter):
    """{"time": seconds since 1970, "level": ..., "message": ...}, and what a task came to."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line | getattr(record, "task", {}))


class Lines(Observer):
    """A line for each task as it ends."""

    @contextmanager
    def task(self, description: str, total: int | None, unit: str | None) -> Iterator[Advance]:
        """See `Observer.task`."""
        start, done = time.perf_counter(), 0

        def advance(n: int = 1, note: str | None = None) -> None:
            nonlocal done
            done += n

        yield advance
        seconds = time.perf_counter() - start
        rate = f", {done} {unit}, {done / seconds:.1f} {unit}/s" if unit else ""
        fields: dict[str, Any] = {"task": description, "seconds": round(seconds, 3), "done": done}
        LOGGER.info("%s: %.1f s%s", description, seconds, rate, extra={"task": fields})


class Bars(Observer):
    """A bar for each task, on a terminal."""

    @contextmanager
    def task(self, description: str, total: int | None, unit: str | None) -> Iterator[Advance]:
        """See `Observer.task`."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            *([rate_column(unit)] if unit else []),
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


def rate_column(unit: str) -> ProgressColumn:
    """Items a second beside a bar."""
    from rich.progress import ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            """The text beside the bar, once there is something to tell."""
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else "")

    return Rate(Column(no_wrap=True))
