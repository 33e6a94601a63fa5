"""One HTML file with everything in it: no network, no scripts."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeclip.files import write_atomically
from edgeclip.report.explain import headlines, training, why_distillation_drifts, why_engines_differ
from edgeclip.report.plots import curve, overview
from edgeclip.report.published import PUBLISHED
from edgeclip.report.row_order import figure, in_order, leading_row
from edgeclip.results import Results, Row
from edgeclip.version import __version__


def templates() -> Environment:
    """What pages are rendered with: everything escaped, nothing undefined."""
    found = Environment(
        loader=PackageLoader("edgeclip.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["figure"] = figure
    return found


def render_report(results: Results) -> str:
    """The report as HTML text."""
    rows = in_order(results.rows)
    return (
        templates()
        .get_template("page.html")
        .render(
            results=results,
            rows=rows,
            version=__version__,
            groups=_groups(rows),
            headlines=headlines(results),
            overview=overview(rows),
            leading=leading_row(results),
            curves=[curve(label, losses) for label, losses in results.losses.items()],
            training=training(results),
            engines=why_engines_differ(results, results.findings) if results.findings else [],
            drift=why_distillation_drifts(results, results.findings) if results.findings else [],
            settings=json.dumps(results.settings, indent=1),
            environment=results.environment,
        )
    )


def _groups(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows of each name, and the published row of that name beside them."""
    published = {row.name: row for row in PUBLISHED}
    return [
        {"name": name, "rows": list(of_name), "published": published.get(name)}
        for name, of_name in groupby(rows, key=lambda row: row.name)
    ]


def write_report(results: Results, path: Path) -> None:
    """Write the report whole or not at all."""
    write_atomically(path, render_report(results).encode("utf-8"))
