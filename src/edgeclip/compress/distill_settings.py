"""What `edgeclip distill` can be told besides its recipe."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edgeclip.data.data_settings import DataSettings
from edgeclip.settings import MOST_PAIRS, ModelConfig, Repeats, Threads, Vocabulary, default_threads


class DistillSettings(DataSettings, frozen=True, kw_only=True):
    """What `distill` can be told.

    `samples` images are trained on, None for as many as the recipe says and the data set has; `pairs` others are
    measured on, but at most a fifth of a data set.
    """

    model: Annotated[str, Meta(description="The teacher: builtin:tabletop, a checkpoint, or a hub id.")]
    recipe: Annotated[str, Meta(description="qad, half, quarter, eighth, or a TOML file.")]
    samples: Annotated[
        Annotated[int, Meta(ge=2, le=2**40)] | None,
        Meta(description="Images to train on; the recipe's number by default."),
    ] = None
    pairs: Annotated[
        int, Meta(ge=2, le=MOST_PAIRS, description="Others to measure on; at most a fifth of a data set.")
    ] = 1000
    threads: Threads = default_threads
    vocabulary: Vocabulary = None
    model_config: ModelConfig = None
    repeats: Repeats = 20
