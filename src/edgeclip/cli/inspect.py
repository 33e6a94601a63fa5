"""`edgeclip inspect`: what is in a checkpoint or a bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeclip.cli import options


def command(
    model: Annotated[
        str, typer.Argument(help="A bundle, builtin:tabletop, a checkpoint, a student's folder, or a hub id.")
    ],
    vocabulary: options.Vocabulary = None,
    as_json: options.Json = False,
) -> None:
    """A bundle's release card; or a checkpoint's parameters, layers, sizes and formats, and what of it is int8."""
    from pathlib import Path

    from edgeclip.bundle import MANIFEST

    if (Path(model) / MANIFEST).is_file():
        from edgeclip.report.card import print_card
        from edgeclip.runtime.inspection import inspect_bundle

        bundle = inspect_bundle(Path(model))
        _print_json(bundle) if as_json else print_card(bundle)
    else:
        from edgeclip.report.terminal import print_inspection
        from edgeclip.reproduce.inspection import inspect

        checkpoint = inspect(model, vocabulary)
        _print_json(checkpoint) if as_json else print_inspection(checkpoint)


def _print_json(inspection: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(inspection)).decode())
