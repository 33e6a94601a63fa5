"""Latency of single calls, and of processes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeclip.results import Percentiles

MEASURE_SECONDS = 40.0
"""For all calls of one model in one process."""


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


def queries(
    encode_crop: Callable[[], object],
    encode_image: Callable[[], NDArray[np.float32]],
    encode_text: Callable[[], NDArray[np.float32]],
    *,
    candidates: int,
    embedding_size: int,
) -> dict[str, Callable[[], object]]:
    """The calls that a row of results times.

    Args:
        encode_crop: embeds an image that is decoded and cropped already.
        encode_image: embeds one from its file, (1, E).
        encode_text: embeds a sentence, (1, E).
        candidates: how many a query is compared with.
        embedding_size: E.

    Returns:
        "image", "text", "i2t" (a file to its best caption) and "t2i" (a sentence to its best image). Candidates were
        embedded before; random ones cost the same to compare with.
    """
    bank = np.random.default_rng(0).standard_normal((candidates, embedding_size)).astype(np.float32)
    return {
        "image": encode_crop,
        "text": encode_text,
        "i2t": lambda: int((bank @ encode_image()[0]).argmax()),
        "t2i": lambda: int((bank @ encode_text()[0]).argmax()),
    }


def percentiles(milliseconds: list[float]) -> Percentiles:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(milliseconds, (50, 95))
    return Percentiles(p50=round(float(p50), 3), p95=round(float(p95), 3))
