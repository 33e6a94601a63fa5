"""What every command on a data set can be told about it."""

from __future__ import annotations

from typing import Literal

from edgeclip.config import Config
from edgeclip.data.source import DataOptions

OnBadImage = Literal["skip", "fail"]


class DataSettings(Config, frozen=True, kw_only=True):
    """Which data, which of it, and how it is decoded: the common part of the commands' settings."""

    data: str
    seed: int = 0
    workers: int = 4
    image_column: str | None = None
    caption_column: str | None = None
    split: str | None = None
    on_bad_image: OnBadImage = "skip"

    @property
    def data_options(self) -> DataOptions:
        """The data set's form."""
        return DataOptions(self.image_column, self.caption_column, self.split)
