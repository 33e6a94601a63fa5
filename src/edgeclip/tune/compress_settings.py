"""What `edgeclip compress` can be told."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from edgeclip.data.data_settings import DataSettings
from edgeclip.errors import ConfigError
from edgeclip.names import BUILTIN
from edgeclip.settings import MOST_PAIRS, ModelConfig, Vocabulary

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
Limit = Annotated[float, Meta(ge=1e-3, le=1e9)] | None
"""None is no limit."""


class CompressSettings(DataSettings, frozen=True, kw_only=True):
    """Which checkpoint, the budget that its bundle must meet on this device, and what the choice is made on."""

    model: Annotated[str, Meta(description="builtin:tabletop, a checkpoint, or a hub id.")]
    data: Annotated[
        str,
        Meta(
            description="builtin:tabletop, a folder, a captions file, or a hub data set; pictures without captions too."
        ),
    ] = BUILTIN
    max_image_ms: Annotated[Limit, Meta(description="Median time of a decoded image, ms.")] = None
    max_text_ms: Annotated[Limit, Meta(description="Median time of a text, ms.")] = None
    max_size_mb: Annotated[Limit, Meta(description="Bytes on disk, in 10^6.")] = None
    max_rss_mb: Annotated[Limit, Meta(description="Peak memory of a process with both towers, 10^6 bytes.")] = None
    max_open_ms: Annotated[
        Limit, Meta(description="From `load` to the first image and text, without the graph cache, ms.")
    ] = None
    max_drop: Annotated[
        float, Meta(ge=0.05, le=100, description="Points of R@1, R@5 and R@10 that may be lost, intervals included.")
    ] = 1.0
    time_budget: Annotated[str, Meta(description="After so long (90s, 20m, 1h) nothing new is tried.")] = "20m"
    pairs: Annotated[
        int,
        Meta(ge=2, le=MOST_PAIRS, description="Pairs to choose on, and as many others for the figures on the card."),
    ] = 1000
    distill: Annotated[
        bool, Meta(description="Also train smaller students, for most of the time budget, on pairs of their own.")
    ] = False
    vocabulary: Vocabulary = None
    model_config: ModelConfig = None

    @property
    def time_budget_s(self) -> float:
        """In seconds.

        Raises:
            ConfigError: it is no time.
        """
        said = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", self.time_budget.strip())
        if said is None or float(said[1]) == 0:
            raise ConfigError(f"`time_budget` {self.time_budget}", expected="90s, 20m or 1h", fix="give 20m")
        return float(said[1]) * UNITS[said[2]]
