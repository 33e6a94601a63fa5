"""`edgeclip bench`: what a bundle costs on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.cli.console import print_json
from edgeclip.cli.options import Json
from edgeclip.measure.bench_settings import BenchSettings

Plot = Annotated[Path | None, Meta(description="Write how the times are spread into this .svg file.")]


def command(settings: BenchSettings, as_json: Json = False, plot: Plot = None) -> None:
    """Time a bundle in processes of its own: percentiles, throughput, memory, opening, cold start, threads, energy.

    With --against, two bundles run in turn, and the ratio of their times is printed with its 95 % interval.
    """
    from edgeclip.measure.bench import bench
    from edgeclip.report.bench import print_bench, write_plot

    found = bench(settings)
    print_json(found) if as_json else print_bench(found)
    if plot is not None:
        write_plot(found, plot)
