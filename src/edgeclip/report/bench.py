"""What `edgeclip bench` measured: a table, and a picture of how the times are spread."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from rich.table import Table

from edgeclip.evaluate.energy import UNREADABLE
from edgeclip.evaluate.ratio import Ratio
from edgeclip.files import write_atomically
from edgeclip.measure.bench import Bench, Measured, Times
from edgeclip.report.terminal import console

COLOURS = ("#2458d3", "#c2571a")
WIDTH, HEIGHT, LEFT, TOP = 640, 300, 50, 40
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<title>Share of image calls within so many milliseconds</title>
<rect width="{width}" height="{height}" fill="#fff"/>
<g stroke="#ccd">{grid}</g>
{lines}
</svg>
"""


def print_bench(found: Bench) -> None:
    """A column for each bundle, and their ratio."""
    table = Table(title=f"{found.environment['threads']} threads, {found.environment['processor']}")
    table.add_column("")
    for one in found.bundles:
        table.add_column(one.bundle, justify="right")
    columns = [_figures(one) for one in found.bundles]
    for name in columns[0]:
        table.add_row(name, *(column.get(name, "-") for column in columns))
    output = console()
    output.print(table)
    for line in sentences(found):
        output.print(line, highlight=False, markup=False)


def sentences(found: Bench) -> list[str]:
    """How the two compare, and what could not be measured."""
    lines = []
    if found.slower:
        one, other = (measured.bundle for measured in found.bundles)
        lines = [f"{tower}: {one} {compared(ratio)} {other}" for tower, ratio in found.slower.items()]
    if any(one.image_joules is None for one in found.bundles):
        lines.append(f"No energy: {UNREADABLE}.")
    return lines


def compared(slower: Ratio) -> str:
    """A ratio in words, with its interval."""
    interval = f"(ratio {slower.value:.3f}, 95 % interval {slower.low:.3f} to {slower.high:.3f})"
    if slower.is_tie:
        return f"ties {interval} with"
    if not slower.is_decided:
        return f"is not told apart {interval} from"
    if slower.low > 1:
        return f"takes {slower.value:.2f} times as long ({slower.low:.2f} to {slower.high:.2f}) as"
    return f"is {1 / slower.value:.2f} times as fast ({1 / slower.high:.2f} to {1 / slower.low:.2f}) as"


def _figures(one: Measured) -> dict[str, str]:
    return {
        "precision": one.precision,
        "image ms, p50 / p95 / p99": _three(one.image_ms),
        "text ms, p50 / p95 / p99": _three(one.text_ms),
        "images a second": f"{one.images_per_s:.1f}",
        "opening ms": f"{one.open_ms:.0f}",
        "cold start ms": f"{one.cold_ms:.0f}",
        "RSS at its peak, MB": f"{one.rss_mb:.0f}",
        "PSS, MB": "-" if one.pss_mb is None else f"{one.pss_mb:.0f}",
        "size, MB": f"{one.size_mb:.1f}",
        **{f"image ms, threads {threads}": f"{ms:.2f}" for threads, ms in one.scaling.items()},
        "joules an image": "-" if one.image_joules is None else f"{one.image_joules:.4f}",
    }


def _three(times: Times) -> str:
    return f"{times.p50:.2f} / {times.p95:.2f} / {times.p99:.2f}"


def write_plot(found: Bench, path: Path) -> None:
    """The share of image calls that took at most so long, a line for each bundle, as SVG."""
    most = max(float(np.percentile(one.image_ms.calls, 99)) for one in found.bundles) * 1.1

    def x_of(ms: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * min(ms, most) / most

    def y_of(share: float) -> float:
        return TOP + (HEIGHT - TOP - 40) * (1 - share)

    grid = "".join(
        f'<path d="M{LEFT} {y_of(share):.1f}H{WIDTH - 20}"/><text x="{LEFT - 8}" y="{y_of(share) + 4:.1f}" '
        f'text-anchor="end" stroke="none">{share:.0%}</text>'
        for share in (0, 0.5, 0.95, 1)
    )
    grid += "".join(
        f'<text x="{x_of(ms):.1f}" y="{HEIGHT - 20}" text-anchor="middle" stroke="none">{ms:.3g} ms</text>'
        for ms in np.linspace(0, most, 5)
    )
    lines = ""
    for number, (one, colour) in enumerate(zip(found.bundles, COLOURS, strict=False)):
        calls = sorted(one.image_ms.calls)
        points = " ".join(f"{x_of(ms):.1f},{y_of((n + 1) / len(calls)):.1f}" for n, ms in enumerate(calls))
        lines += f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'
        lines += f'<text x="{LEFT}" y="{16 + 14 * number}" fill="{colour}">{escape(one.bundle)}</text>'
    write_atomically(path, SVG.format(width=WIDTH, height=HEIGHT, grid=grid, lines=lines).encode())
