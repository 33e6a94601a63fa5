"""`edgeclip classify`: zero-shot labels from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeclip.cli import options


def command(
    bundle: Annotated[Path, typer.Argument(help="Made by edgeclip export.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    labels: Annotated[str, typer.Option(help="Separated by commas, such as cat,dog,nothing.")],
    template: Annotated[str, typer.Option(help="A sentence with {} where the label goes.")] = "a photo of a {}",
    threads: options.RuntimeThreads = None,
    as_json: options.Json = False,
) -> None:
    """The labels of each image, the most probable first."""
    import json

    from edgeclip.runtime import load

    clip = load(bundle, threads=threads)
    names = [label.strip() for label in labels.split(",") if label.strip()]
    for path, found in zip(images, clip.classify(images, names, template=template), strict=True):
        if as_json:
            print(json.dumps({"image": str(path), "labels": {label.name: label.probability for label in found}}))
        else:
            print(f"{path}  " + "  ".join(f"{label.name} {label.probability:.3f}" for label in found))
