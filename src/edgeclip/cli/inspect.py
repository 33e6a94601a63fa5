"""`edgeclip inspect`: what is in a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeclip.cli import options


def command(
    model: Annotated[str, typer.Argument(help="builtin:tabletop, a checkpoint, a student's folder, or a hub id.")],
    vocabulary: options.Vocabulary = None,
    as_json: options.Json = False,
) -> None:
    """Parameters, layers, sizes and formats; of a student also what is int8 and what is not."""
    import msgspec

    from edgeclip.report.terminal import print_inspection
    from edgeclip.reproduce.inspection import inspect

    inspection = inspect(model, vocabulary)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(inspection)).decode())
    else:
        print_inspection(inspection)
