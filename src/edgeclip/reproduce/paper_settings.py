"""What a reproduction can be told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from edgeclip.data.data_settings import DataSettings
from edgeclip.distill.train_config import TrainConfig
from edgeclip.errors import ConfigError
from edgeclip.names import BUILTIN
from edgeclip.settings import MOST_PAIRS, ModelConfig, Repeats, Threads, Vocabulary, default_threads

Alpha = Annotated[float, Meta(ge=0, le=1)]


class Settings(DataSettings, frozen=True, kw_only=True):
    """Settings of `reproduce`: the paper's where they are known; `lr` is the usual default of Adam."""

    model: Annotated[str, Meta(description="builtin:tabletop, a checkpoint, or a hub id.")] = BUILTIN
    samples: Annotated[int, Meta(ge=2, le=MOST_PAIRS, description="Image-caption pairs to sample.")] = 1000
    val_fraction: Annotated[float, Meta(ge=0, le=1, description="Part of them that is only evaluated on.")] = 0.2
    alpha: Annotated[Alpha, Meta(description="Weight of the teacher in the distillation loss.")] = 0.3
    temperature: Annotated[float, Meta(description="Softens both distributions.")] = 1.0
    epochs: Annotated[int, Meta(ge=1, le=2**31, description="Passes over the training pairs.")] = 3
    lr: Annotated[float, Meta(ge=1e-12, le=1e30, description="Peak learning rate; the default is Adam's own.")] = 1e-3
    batch_size: Annotated[int, Meta(ge=1, le=2**31, description="Pairs of a training step.")] = 32
    workers: Annotated[int, Meta(ge=0, le=256, description="Processes that decode images; 0 decodes in this one.")] = 4
    engine: Annotated[
        Literal["auto", "qnnpack", "x86", "onednn"],
        Meta(description="auto (the fastest here), qnnpack, x86 or onednn."),
    ] = "auto"
    normalize: Annotated[
        Literal["checkpoint", "paper", "report"],
        Meta(description="checkpoint (its own mean and std) or paper (0.5; report is its former name)."),
    ] = "checkpoint"
    threads: Threads = default_threads
    sweep_alpha: Annotated[tuple[Alpha, ...], Meta(description="Also try these alphas, such as 0.1,0.3,0.5.")] = ()
    test_image: Annotated[str | None, Meta(description="Picture whose best caption each model picks.")] = None
    vocabulary: Vocabulary = None
    model_config: ModelConfig = None
    repeats: Repeats = 20
    with_better: Annotated[bool, Meta(description="Add bundles: fp32, int8, and distilled.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"`temperature` {self.temperature}", expected="a positive number", fix="use 1")
        if self.test_image is not None and not Path(self.test_image).is_file():
            raise ConfigError(
                f"`test_image` {self.test_image}", expected="an image file", fix="give the path of one, or leave it out"
            )

    @property
    def train(self) -> TrainConfig:
        """How the students are trained."""
        return TrainConfig(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, checkpoint_every=50)
