"""`edgeclip compress`: a budget in, the best bundle that this device can run out."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import Meta

from edgeclip.cli.console import print_json
from edgeclip.cli.options import Json, OutFolder
from edgeclip.tune.compress_settings import CompressSettings

NOTHING_FITS = 3


DryRun = Annotated[bool, Meta(description="Print what would be done and how long it may take, and do nothing.")]


def command(settings: CompressSettings, out: OutFolder, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Measure candidates on this device, and write the fastest bundle that keeps the limits and the accuracy.

    Where none does, the closest one is written, with the limits to relax, and the exit code is 3.
    """
    from edgeclip.tune.arguments import check_arguments

    check_arguments(settings, out.resolve())

    from edgeclip.report.compressed import print_compressed
    from edgeclip.report.compressed_html import write_card_html
    from edgeclip.tune.run import compress, plan  # which takes seconds, for PyTorch

    if dry_run:
        steps = plan(settings)
        for step in steps:
            print(f"{step.seconds:7.0f} s  {step.words}")
        print(f"{sum(step.seconds for step in steps):7.0f} s  in all, where nothing else runs")
        return
    card = compress(settings, out.resolve())
    write_card_html(out)
    if as_json:
        print_json(card)
    else:
        print_compressed(card, out)
    if not card.fits:
        raise typer.Exit(NOTHING_FITS)
