"""Latency of single calls.

Shape legend: C candidates, E embedding size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgeclip.evaluate.encoder import Encoder
from edgeclip.image import Crop
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


def queries(encoder: Encoder, image: Path, crop: Crop, captions: Sequence[str]) -> dict[str, Callable[[], object]]:
    """The calls that a row of results times.

    Args:
        encoder: the model.
        image: a file to encode and to query with.
        crop: the same, decoded and cropped already.
        captions: as many candidates as a query has; the first is encoded and queried with.

    Returns:
        "image" and "text", the encoders alone; "i2t" (a file to its best caption) and "t2i" (a sentence to its best
        image). Candidates were embedded before; random ones cost the same to compare with.
    """
    shape = (len(captions), encoder.embedding_size)
    candidates_CE = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return {
        "image": lambda: encoder.encode_image([crop]),
        "text": lambda: encoder.encode_text(captions[:1]),
        "i2t": lambda: int((candidates_CE @ encoder.encode_image([image])[0]).argmax()),
        "t2i": lambda: int((candidates_CE @ encoder.encode_text(captions[:1])[0]).argmax()),
    }


def percentiles(milliseconds: list[float]) -> Percentiles:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(milliseconds, (50, 95))
    return Percentiles(p50=round(float(p50), 3), p95=round(float(p95), 3))
