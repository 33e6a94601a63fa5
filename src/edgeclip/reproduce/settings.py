"""What a reproduction can be told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import msgspec

from edgeclip.config import check_range, check_run, processors
from edgeclip.data.settings import DataSettings
from edgeclip.distill.trainer import TrainConfig
from edgeclip.errors import ConfigError

Engine = Literal["auto", "qnnpack", "x86", "onednn"]


class Settings(DataSettings, frozen=True, kw_only=True):
    """Options of `edgeclip reproduce`: the report's where they are known; `lr` is the usual default of Adam.

    `workers` decode images; `threads` run the models; `repeats` timed calls per model and call.
    """

    model: str = "builtin:tabletop"
    data: str = "builtin:tabletop"
    samples: int = 1000
    val_fraction: float = 0.2
    alpha: float = 0.3
    temperature: float = 1.0
    epochs: int = 3
    lr: float = 1e-3
    batch_size: int = 32
    engine: Engine = "auto"
    normalize: Literal["checkpoint", "report"] = "checkpoint"
    threads: int = msgspec.field(default_factory=processors)
    sweep_alpha: tuple[float, ...] = ()
    test_image: str | None = None
    vocabulary: str | None = None
    repeats: int = 20
    with_better: bool = False

    def __post_init__(self) -> None:
        for alpha in (self.alpha, *self.sweep_alpha):
            if not 0 <= alpha <= 1:
                raise ConfigError(
                    f"alpha {alpha}", expected="a number from 0 to 1", fix="correct --alpha or --sweep-alpha"
                )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"--temperature {self.temperature}", expected="a positive number", fix="try 1")
        check_run(threads=self.threads, workers=self.workers, seed=self.seed)
        check_range("--samples", self.samples, 2, 2**40)
        check_range("--repeats", self.repeats, 1, 100_000)
        if self.test_image is not None and not Path(self.test_image).is_file():
            raise ConfigError(f"--test-image {self.test_image}", expected="an image file", fix="check the path")
        _ = self.train  # its own checks

    @property
    def train(self) -> TrainConfig:
        """How the students are trained."""
        return TrainConfig(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, checkpoint_every=50)
