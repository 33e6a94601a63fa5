"""The report's plots, as SVG text that follows the page's fonts."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from edgeclip.report.explain import mean_r1
from edgeclip.results import Row

COLORS = {"TEACHER": "#3b5bdb", "STUDENT": "#e8590c", "DISTILLED": "#2b8a3e"}
OTHER = "#495057"
STYLES = ("-", "--", ":", "-.")
SMOOTHING = 10


def _svg(figure: Figure) -> Markup:
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgeclip"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # noqa: S704 - made here, from numbers and escaped labels


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def trade_off_plot(rows: Sequence[Row]) -> Markup:
    """Image latency against recall; the area of a point is the model's size on disk."""
    figure, axes = _axes(8.2, 4.0)
    largest = max(row.size_mb for row in rows)
    for number, row in enumerate(rows, 1):
        x, y = row.latency_ms.image.p50, mean_r1(row)
        color = COLORS.get(row.name, OTHER)
        low = (row.i2t.r1.low + row.t2i.r1.low) / 2
        high = (row.i2t.r1.high + row.t2i.r1.high) / 2
        axes.errorbar(x, y, yerr=[[y - low], [high - y]], color=color, alpha=0.35, linewidth=1.2)
        label = f"{number}  {row.name}, {row.variant} ({row.size_mb:.1f} MB)"
        axes.scatter(x, y, s=40 + 600 * row.size_mb / largest, color=color, alpha=0.45, linewidth=0, label=label)
        axes.annotate(str(number), (x, y), ha="center", va="center", fontsize=9, fontweight="bold")
    axes.set_xscale("log")
    axes.margins(0.12)
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.set_xlabel("one image, ms (faster to the left)")
    axes.set_ylabel("mean R@1, %")
    legend = axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False, fontsize=9, handletextpad=0.6)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([60])
    return _svg(figure)


def loss_plot(losses: dict[str, list[float]]) -> Markup:
    """The loss of every step, faint, and its moving average."""
    figure, axes = _axes(8.2, 3.2)
    for (label, values), style in zip(losses.items(), STYLES * len(losses), strict=False):
        steps = np.arange(1, len(values) + 1)
        window = min(SMOOTHING, max(len(values) // 5, 1))
        average = np.convolve(values, np.ones(window) / window, mode="valid")
        line = axes.plot(steps[window - 1 :], average, style, linewidth=1.8, label=label)[0]
        axes.plot(steps, values, color=line.get_color(), alpha=0.2, linewidth=0.8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)
