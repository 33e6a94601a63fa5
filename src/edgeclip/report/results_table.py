"""The rows of results as a terminal table, whole or where there is little room."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from edgeclip.report.row_order import figure, in_order, interval, leading_row
from edgeclip.results import Results, Row

WHOLE_WIDTH = 132
"""What all columns take."""


class Column(NamedTuple):
    """What a column says of a row; some are shown only where there is room."""

    name: str
    cell: Callable[[Row], str]
    narrow: bool = True


COLUMNS = (
    Column("I2T R@1", lambda row: interval(row.i2t.r1)),
    Column("R@5", lambda row: f"{row.i2t.r5.value:.1f}", narrow=False),
    Column("T2I R@1", lambda row: interval(row.t2i.r1)),
    Column("R@5", lambda row: f"{row.t2i.r5.value:.1f}", narrow=False),
    Column("image", lambda row: figure(row.latency_ms.image.p50)),
    Column("text", lambda row: figure(row.latency_ms.text.p50), narrow=False),
    Column("I2T", lambda row: figure(row.latency_ms.i2t.p50), narrow=False),
    Column("T2I", lambda row: figure(row.latency_ms.t2i.p50), narrow=False),
    Column("MB", lambda row: f"{row.size_mb:.1f}"),
    Column("RSS MB", lambda row: f"{row.peak_rss_mb:.0f}", narrow=False),
)


def results_table(results: Results, width: int) -> Table:
    """A line for each row, with the columns that have room in `width` letters."""
    data = results.data
    table = Table(
        title=escape(f"{results.settings['model']} on {data.name}: {data.validation} candidates, one caption each"),
        caption="recalls in %, 95 % bootstrap interval; times at batch 1, median ms; sizes in 10^6 bytes",
    )
    columns = [column for column in COLUMNS if column.narrow or width >= WHOLE_WIDTH]
    for name in ("model", "variant"):
        table.add_column(name, overflow="fold")
    for column in columns:
        table.add_column(column.name, justify="right", no_wrap=True)
    leading = leading_row(results)
    for row in in_order(results.rows):
        cells = [escape(row.name), escape(row.variant), *(column.cell(row) for column in columns)]
        table.add_row(*cells, style="bold" if row is leading else None)
    return table
