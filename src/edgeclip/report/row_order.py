"""The rows of results: their order, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable

from edgeclip.results import Interval, Results, Row

NAME_ORDER = ("TEACHER", "EDGECLIP", "STUDENT", "DISTILLED")
"""What is given and what edgeclip makes of it; then what the paper does. Other names come last."""


def in_order(rows: Iterable[Row]) -> list[Row]:
    """All rows, those of a name together and as they were measured."""

    def place(row: Row) -> tuple[int, str]:
        return NAME_ORDER.index(row.name) if row.name in NAME_ORDER else len(NAME_ORDER), row.name

    return sorted(rows, key=place)


def row_of(results: Results, name: str, containing: str = "") -> Row | None:
    """The first row of a name whose variant contains a word."""
    return next((row for row in results.rows if row.name == name and containing in row.variant), None)


def leading_row(results: Results) -> Row | None:
    """What edgeclip has made: its bundle of the teacher, or of a student where one was distilled by a recipe."""
    return row_of(results, "EDGECLIP") or (row_of(results, "DISTILLED") if results.settings.get("recipe") else None)


def mean_r1(row: Row) -> Interval:
    """Mean of the two directions' recall at 1, and of the bounds of its interval."""
    i2t, t2i = row.i2t.r1, row.t2i.r1
    return Interval(value=(i2t.value + t2i.value) / 2, low=(i2t.low + t2i.low) / 2, high=(i2t.high + t2i.high) / 2)


def figure(value: float) -> str:
    """A time or a size with the digits that mean something."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def interval(value: Interval) -> str:
    """A recall with its interval."""
    return f"{value.value:.1f} [{value.low:.0f}, {value.high:.0f}]"
