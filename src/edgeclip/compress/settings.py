"""What `edgeclip distill` can be told besides its recipe."""

from __future__ import annotations

import msgspec

from edgeclip.config import check_range, check_run, processors
from edgeclip.data.settings import DataSettings


class DistillSettings(DataSettings, frozen=True, kw_only=True):
    """Options of `edgeclip distill`.

    `samples` images are trained on, None for as many as the recipe says and the data set has; `pairs` others are
    measured on, but at most a fifth of a data set. `repeats` timed calls per row and call.
    """

    model: str
    recipe: str
    data: str = "builtin:tabletop"
    samples: int | None = None
    pairs: int = 1000
    workers: int = 2
    threads: int = msgspec.field(default_factory=processors)
    vocabulary: str | None = None
    repeats: int = 20

    def __post_init__(self) -> None:
        check_run(threads=self.threads, workers=self.workers, seed=self.seed)
        check_range("--samples", 2 if self.samples is None else self.samples, 2, 2**40)
        check_range("--pairs", self.pairs, 2, 2**31)
        check_range("--repeats", self.repeats, 1, 100_000)
