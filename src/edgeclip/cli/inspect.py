"""`edgeclip inspect`: what is in a checkpoint or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.cli.console import print_json
from edgeclip.cli.options import Json
from edgeclip.errors import ConfigError
from edgeclip.settings import ForeignPrecision, ModelConfig, Settings, Vocabulary


class InspectSettings(Settings, frozen=True, kw_only=True):
    """What to inspect."""

    model: Annotated[
        str,
        Meta(description="A bundle, another program's ONNX graphs, builtin:tabletop, a checkpoint, or a hub id."),
    ]
    vocabulary: Vocabulary = None
    model_config: ModelConfig = None
    precision: ForeignPrecision = None
    as_json: Json = False


def command(settings: InspectSettings) -> None:
    """A bundle's release card; a checkpoint's parameters and layers; what another program's ONNX graphs compute."""
    from edgeclip.measure.inspection import inspect, inspect_bundle
    from edgeclip.measure.source import is_bundle
    from edgeclip.runtime.foreign import at_hand, foreign_graphs
    from edgeclip.runtime.joined import refuse_joined

    refuse_joined(settings.model, "inspect each alone")
    source = str(at_hand(settings.model, settings.precision))
    layout = foreign_graphs(source)
    if settings.precision is not None and layout is None:
        raise ConfigError(
            f"`precision` for {settings.model}", expected="another program's ONNX graphs", fix="leave out `precision`"
        )
    if is_bundle(source):
        from edgeclip.report.card import print_card

        bundle = inspect_bundle(Path(source))
        print_json(bundle) if settings.as_json else print_card(bundle)
    elif layout is not None:
        from edgeclip.measure.foreign_inspection import inspect_foreign
        from edgeclip.report.foreign import print_foreign

        graphs = inspect_foreign(Path(source), layout, settings.precision)
        print_json(graphs) if settings.as_json else print_foreign(graphs)
    else:
        from edgeclip.report.terminal import print_inspection

        checkpoint = inspect(settings.model, settings.vocabulary, settings.model_config)
        print_json(checkpoint) if settings.as_json else print_inspection(checkpoint)
