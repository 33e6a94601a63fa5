"""`edgeclip classify`: zero-shot labels from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgeclip.cli import options
from edgeclip.cli.images import intact, list_images, not_empty
from edgeclip.errors import ConfigError, DataError


def command(
    bundle: Annotated[Path, typer.Argument(help="Made by edgeclip export.")],
    paths: options.ImagePaths = None,
    labels: Annotated[Optional[str], typer.Option(help="Separated by commas, such as cat,dog,nothing.")] = None,
    labels_file: Annotated[Optional[Path], typer.Option(help="A file with a label a line.")] = None,
    template: Annotated[str, typer.Option(help="A sentence with {} where the label goes.")] = "a photo of a {}",
    workers: options.BulkWorkers = None,
    threads: options.BulkThreads = 1,
    on_bad_image: options.OnBadImage = "skip",
    as_json: options.Json = False,
) -> None:
    """The labels of each image as it is done, the most probable first."""
    import json

    from edgeclip.config import processors
    from edgeclip.files import printable
    from edgeclip.runtime import load
    from edgeclip.runtime.path_names import path_to_text

    if labels is not None and labels_file is not None:
        raise ConfigError("both --labels and --labels-file", expected="one of them", fix="choose")
    given = labels_file.read_text("utf-8-sig", "replace").splitlines() if labels_file else (labels or "").split(",")
    names = dict.fromkeys(printable(label.strip()) for label in given if label.strip())
    clip = load(bundle, threads=threads)
    images = not_empty(list_images(paths or []), "images")
    classifier = clip.classifier(list(names), template=template)
    embedded = clip.stream_images(images, workers=processors() if workers is None else workers)
    none = True
    for path, embeds in intact(embedded, on_bad_image):
        none = False
        (found,) = classifier(embeds[None])
        if as_json:
            of_label = {label.name: label.probability for label in found}
            line = json.dumps({"image": path_to_text(path), "labels": of_label})
        else:
            line = f"{printable(path)}  " + "  ".join(f"{label.name} {label.probability:.3f}" for label in found)
        print(line, flush=True)
    if none:
        raise DataError("images, none of which can be read", expected="at least one", fix="see above")
