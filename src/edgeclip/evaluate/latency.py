"""Latency of single calls, and of processes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edgeclip.results import Percentiles


def time_calls(
    calls: dict[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 3,
    budget_s: float = 60.0,
    pause_s: float = 0.0,
) -> dict[str, list[float]]:
    """Time calls in turn (A B C A B C ...), so that drift of the machine's speed meets all of them alike.

    Args:
        calls: what to time, by name.
        repeats: timed rounds at most; at least 3 are made.
        warmup: rounds that are not counted.
        budget_s: stop early after this many seconds.
        pause_s: before each call, so that threads of the one before come to rest.

    Returns:
        Milliseconds of each call, by name.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + budget_s
    for round_ in range(repeats):
        if round_ >= 3 and time.perf_counter() > end:
            break
        for name, call in calls.items():
            time.sleep(pause_s)
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def percentiles(milliseconds: list[float]) -> Percentiles:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(milliseconds, (50, 95))
    return Percentiles(p50=round(float(p50), 3), p95=round(float(p95), 3))
