"""How to train."""

from __future__ import annotations

from typing import Literal

from edgeclip.config import Config, check_range

MixedPrecision = Literal["no", "bf16", "fp16"]


class TrainConfig(Config, frozen=True, kw_only=True):
    """How to train. `lr` is the peak after a linear warm-up over `warmup_fraction` of the steps; then a cosine to 0.

    `batch_size` pairs make a step, whatever the number of processes. `chunk_size` is for how many of its pairs a
    process keeps the activations (see `embed.embed_in_chunks`), None for all; `mixed_precision` is accelerate's.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.1
    beta2: float = 0.98
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    checkpoint_every: int = 200
    chunk_size: int | None = None
    mixed_precision: MixedPrecision = "no"

    def __post_init__(self) -> None:
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("beta2", self.beta2, 0, 0.999999)
        check_range("warmup_fraction", self.warmup_fraction, 0, 1)
        check_range("max_grad_norm", self.max_grad_norm, 1e-12, 1e12)
        check_range("epochs", self.epochs, 1, 2**31)
        check_range("batch_size", self.batch_size, 1, 2**31)
        check_range("checkpoint_every", self.checkpoint_every, 1, 2**31)
        check_range("chunk_size", 1 if self.chunk_size is None else self.chunk_size, 1, 2**31)
        check_range("lr", self.lr, 1e-12, 1e30)
