"""What a call costs: the most memory at a time and the processor time, with the processes that it starts (Linux)."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PEAK, NOW = "VmHWM:", "VmRSS:"


@dataclass(frozen=True)
class Cost:
    """Bytes beyond what the processes had before, and seconds of processor time."""

    peak: int
    seconds: float


def measured(call: Callable[[], object]) -> Cost:
    """Peaks of this process and of its children are added, though they may come one after the other."""
    children = {pid: _seconds(pid) for pid in _children()}
    for pid in (os.getpid(), *children):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    had = {pid: _memory(pid, NOW) for pid in (os.getpid(), *children)}
    own, ended = time.process_time(), _ended()
    call()
    seconds = time.process_time() - own + _ended() - ended
    seconds += sum(map(_seconds, _children())) - sum(children.values())
    peak = sum(_memory(pid, PEAK) - had.get(pid, 0) for pid in (os.getpid(), *_children()))
    return Cost(peak, seconds)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _memory(pid: int, what: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _ended() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
