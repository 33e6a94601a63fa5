"""`edgeclip classify`: zero-shot labels from a bundle."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.cli.options import BulkSettings, Json
from edgeclip.errors import ConfigError, DataError
from edgeclip.settings import LogitBias, LogitScale

MAX_LABELS_BYTES = 16_000_000


class ClassifySettings(BulkSettings, frozen=True, kw_only=True):
    """What to choose from, and how a label becomes a sentence."""

    labels: Annotated[str | None, Meta(description="Separated by commas, such as cat,dog,nothing.")] = None
    labels_file: Annotated[Path | None, Meta(description="A file with a label a line.")] = None
    template: Annotated[str, Meta(description="A sentence with {} where the label goes.")] = "a photo of a {}"
    logit_scale: LogitScale = None
    logit_bias: LogitBias = None
    as_json: Json = False


def command(settings: ClassifySettings) -> None:
    """The labels of each image as it is done, the most probable first."""
    import json

    from edgeclip.bulk.images import Intact, list_images, not_empty
    from edgeclip.bulk.path_names import path_to_text
    from edgeclip.cpu import processors
    from edgeclip.files import printable
    from edgeclip.runtime import load

    names = _labels(settings)
    clip = load(
        settings.bundle,
        threads=settings.threads,
        precision=settings.precision,
        logit_scale=settings.logit_scale,
        logit_bias=settings.logit_bias,
    )
    skipped: Counter[str] = Counter()
    images = not_empty(list_images(settings.paths, skipped), "images", skipped)
    classifier = clip.classifier(names, template=settings.template)
    embedded = clip.stream_images(images, workers=processors() if settings.workers is None else settings.workers)
    none = True
    for path, embeds in Intact(embedded, settings.on_bad_image, skipped):
        none = False
        (found,) = classifier(embeds[None])
        if settings.as_json:
            of_label = {label.name: label.probability for label in found}
            line = json.dumps({"image": path_to_text(path), "labels": of_label})
        else:
            line = f"{printable(path)}  " + "  ".join(f"{label.name} {label.probability:.3f}" for label in found)
        print(line, flush=True)
    if none:
        raise DataError(
            "images, none of which can be read",
            expected="at least one",
            fix="give other `paths`; the reasons are above",
        )


def _labels(settings: ClassifySettings) -> list[str]:
    from edgeclip.files import printable
    from edgeclip.text_files import decoded, read_bytes

    if settings.labels is not None and settings.labels_file is not None:
        raise ConfigError(
            "both `labels` and `labels_file`", expected="one of them", fix="leave out `labels` or `labels_file`"
        )
    file = settings.labels_file
    if file:
        given = decoded(read_bytes(file, MAX_LABELS_BYTES), str(file)).splitlines()
    else:
        given = (settings.labels or "").split(",")
    return list(dict.fromkeys(printable(label.strip()) for label in given if label.strip()))
