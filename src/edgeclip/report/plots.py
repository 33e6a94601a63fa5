"""The report's pictures as positions in per cent of their boxes; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeclip.report.row_order import mean_r1
from edgeclip.results import Interval, Row

SMOOTHING = 10
MAX_POINTS = 400
"""More are not seen."""


@dataclass(frozen=True)
class Line:
    """One row of the overview: two bars from zero, and a recall with its interval on the overview's axis."""

    row: Row
    size: float
    time: float
    recall: Interval
    position: Interval


@dataclass(frozen=True)
class Overview:
    """Every row at a glance; `low` and `high` are the recalls at the ends of the axis, `teacher` a place on it."""

    lines: list[Line]
    low: int
    high: int
    teacher: float | None


def overview(rows: Sequence[Row]) -> Overview:
    """Place every row's size, image time and mean recall at 1."""
    recalls = [mean_r1(row) for row in rows]
    low = 10 * math.floor(min(recall.low for recall in recalls) / 10)
    high = max(10 * math.ceil(max(recall.high for recall in recalls) / 10), low + 10)

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    largest = max(row.size_mb for row in rows)
    slowest = max(row.latency_ms.image.p50 for row in rows)
    lines = [
        Line(
            row=row,
            size=100 * row.size_mb / largest,
            time=100 * row.latency_ms.image.p50 / slowest,
            recall=recall,
            position=Interval(value=place(recall.value), low=place(recall.low), high=place(recall.high)),
        )
        for row, recall in zip(rows, recalls, strict=True)
    ]
    return Overview(lines, low, high, next((x.position.value for x in lines if x.row.name == "TEACHER"), None))


@dataclass(frozen=True)
class Curve:
    """The loss of every step and its moving average, as points of polylines between `low` and `high`."""

    label: str
    steps: int
    low: float
    high: float
    first: float
    last: float
    raw: str
    average: str


def curve(label: str, losses: Sequence[float]) -> Curve:
    """A loss curve; `first` and `last` are of the moving average."""
    values = np.asarray(losses)
    window = min(SMOOTHING, max(len(values) // 5, 1))
    average = np.convolve(values, np.ones(window) / window, mode="valid")
    low, high = float(values.min()), float(values.max())

    def points(heights: NDArray[np.float64], start: int) -> str:
        x = 100 * np.arange(start, start + len(heights)) / max(len(values) - 1, 1)
        y = 100 * (high - heights) / ((high - low) or 1.0)
        every = math.ceil(len(x) / MAX_POINTS)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[::every], y[::every], strict=True))

    return Curve(
        label=label,
        steps=len(values),
        low=low,
        high=high,
        first=float(average[0]),
        last=float(average[-1]),
        raw=points(values, 0),
        average=points(average, window - 1),
    )
