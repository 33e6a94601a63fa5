"""One HTML file with everything in it: no network, no scripts."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from edgeclip.files import write_atomically
from edgeclip.report.explain import headlines, training, why_distillation_drifts, why_engines_differ
from edgeclip.report.plots import loss_plot, trade_off_plot
from edgeclip.report.published import PUBLISHED
from edgeclip.results import Results
from edgeclip.version import __version__

NAME_ORDER = ("TEACHER", "STUDENT", "DISTILLED")


def render_report(results: Results) -> str:
    """The report as HTML text."""
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string((resources.files("edgeclip.report") / "template.html").read_text(encoding="utf-8"))
    return template.render(
        results=results,
        version=__version__,
        published=PUBLISHED,
        groups=_groups(results),
        headlines=headlines(results),
        trade_off=trade_off_plot(results.rows),
        losses=loss_plot(results.losses) if results.losses else None,
        training=training(results),
        engines=why_engines_differ(results, results.findings) if results.findings else [],
        drift=why_distillation_drifts(results, results.findings) if results.findings else [],
        settings=json.dumps(results.settings, indent=1),
        environment=results.environment,
    )


def _groups(results: Results) -> list[dict[str, Any]]:
    """Our rows beside the published row of the same name."""
    names = [*NAME_ORDER, *sorted({row.name for row in results.rows} - set(NAME_ORDER))]
    published = {row.name: row for row in PUBLISHED}
    groups = [
        {"name": name, "published": published.get(name), "rows": [row for row in results.rows if row.name == name]}
        for name in names
    ]
    return [group for group in groups if group["rows"]]


def write_report(results: Results, path: Path) -> None:
    """Write the report whole or not at all."""
    write_atomically(path, render_report(results).encode("utf-8"))
