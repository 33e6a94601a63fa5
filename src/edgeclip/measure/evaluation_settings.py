"""What `evaluate` can be told."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edgeclip.data.data_settings import DataSettings
from edgeclip.settings import ModelConfig, Threads, Vocabulary, default_threads


class EvaluationSettings(DataSettings, frozen=True, kw_only=True):
    """What `evaluate` can be told; `samples` None means every image that is not kept to calibrate or choose on."""

    model: Annotated[str, Meta(description="A checkpoint, a bundle, a student's folder, or a hub id.")]
    samples: Annotated[
        Annotated[int, Meta(ge=1, le=2**40)] | None,
        Meta(description="Images to sample; by default all but those that export calibrates on (1,000 scenes)."),
    ] = None
    workers: Annotated[int, Meta(ge=0, le=256, description="Processes that decode images; 0 decodes in this one.")] = 4
    threads: Threads = default_threads
    vocabulary: Vocabulary = None
    model_config: ModelConfig = None
