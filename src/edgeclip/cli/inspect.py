"""`edgeclip inspect`: what is in a checkpoint or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.cli.console import print_json
from edgeclip.cli.options import Json
from edgeclip.settings import ModelConfig, Settings, Vocabulary


class InspectSettings(Settings, frozen=True, kw_only=True):
    """What to inspect."""

    model: Annotated[
        str, Meta(description="A bundle, builtin:tabletop, a checkpoint, a student's folder, or a hub id.")
    ]
    vocabulary: Vocabulary = None
    model_config: ModelConfig = None
    as_json: Json = False


def command(settings: InspectSettings) -> None:
    """A bundle's release card; or a checkpoint's parameters, layers, sizes and formats, and what of it is int8."""
    from edgeclip.measure.inspection import inspect, inspect_bundle
    from edgeclip.measure.source import is_bundle

    if is_bundle(settings.model):
        from edgeclip.report.card import print_card

        bundle = inspect_bundle(Path(settings.model))
        print_json(bundle) if settings.as_json else print_card(bundle)
    else:
        from edgeclip.report.terminal import print_inspection

        checkpoint = inspect(settings.model, settings.vocabulary, settings.model_config)
        print_json(checkpoint) if settings.as_json else print_inspection(checkpoint)
