"""`edgeclip compress`: a budget in, the best bundle that this device can run out."""

from __future__ import annotations

import typer

from edgeclip.cli.console import print_json
from edgeclip.cli.options import Json, OutFolder
from edgeclip.tune.compress_settings import CompressSettings

NOTHING_FITS = 3


def command(settings: CompressSettings, out: OutFolder, as_json: Json = False) -> None:
    """Measure candidates on this device, and write the fastest bundle that keeps the limits and the accuracy.

    Where none does, the closest one is written, with the limits to relax, and the exit code is 3.
    """
    from edgeclip.report.compressed import print_compressed
    from edgeclip.report.compressed_html import write_card_html
    from edgeclip.tune.run import compress

    card = compress(settings, out)
    write_card_html(out)
    if as_json:
        print_json(card)
    else:
        print_compressed(card, out)
    if not card.fits:
        raise typer.Exit(NOTHING_FITS)
