"""What `export` can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edgeclip.data.data_settings import DataSettings
from edgeclip.settings import (
    MOST_PAIRS,
    KeepWords,
    LogitBias,
    LogitScale,
    ModelConfig,
    Threads,
    Vocabulary,
    default_threads,
)

CARD_PAIRS = 200
"""For a release card, where nothing else is asked for."""


class SampleSettings(DataSettings, frozen=True, kw_only=True):
    """Which data, and how many image-caption pairs to measure on."""

    samples: Annotated[
        int, Meta(ge=2, le=MOST_PAIRS, description="Pairs for the release card; up to 32 others calibrate and choose.")
    ] = CARD_PAIRS


class ExportSettings(SampleSettings, frozen=True, kw_only=True):
    """Which checkpoint becomes what kind of bundle, and what it is calibrated and measured on."""

    model: Annotated[
        str, Meta(description="builtin:tabletop, a checkpoint, a hub id, or a folder of another program's ONNX graphs.")
    ]
    precision: Annotated[
        Literal["int8", "fp32", "auto"], Meta(description="int8, fp32, or auto: int8 where it keeps the accuracy.")
    ] = "int8"
    layout: Annotated[
        Literal["edgeclip", "immich"],
        Meta(description="edgeclip, which transformers.js reads too, or what Immich's machine learning reads."),
    ] = "edgeclip"
    combined_graph: Annotated[
        bool,
        Meta(
            description="Add both towers in one graph, for zero-shot pipelines.",
            extra={"flags": ("--with-combined-graph", "--with-joint-graph")},
        ),
    ] = False
    fuse_tokens: Annotated[
        str | None,
        Meta(
            description="Fuse similar patches, for speed, at some accuracy: 50% of their work, or 35%x3 (at 3 layers), "
            "or 8 (a layer)."
        ),
    ] = None
    keep_words: KeepWords = []
    logit_scale: LogitScale = None
    logit_bias: LogitBias = None
    threads: Threads = default_threads
    vocabulary: Vocabulary = None
    model_config: ModelConfig = None
