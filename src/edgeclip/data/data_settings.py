"""What every command on a data set can be told about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from edgeclip.names import BUILTIN
from edgeclip.settings import OnBadImage, Seed, Settings, Workers


@dataclass(frozen=True)
class DataOptions:
    """What a user may say about a data set's form; None means "find it"."""

    image_column: str | None = None
    caption_column: str | None = None
    split: str | None = None


class DataSettings(Settings, frozen=True, kw_only=True):
    """Which data, which of it, and how it is decoded: the common part of the commands' settings."""

    data: Annotated[str, Meta(description="builtin:tabletop, a folder, a captions file, or a hub data set.")] = BUILTIN
    seed: Seed = 0
    workers: Workers = 2
    image_column: Annotated[str | None, Meta(description="Column of the images; found where it is not given.")] = None
    caption_column: Annotated[str | None, Meta(description="Column of the captions; found where it is not given.")] = (
        None
    )
    split: Annotated[
        str | None, Meta(description="Part of a set that has several; by default test, for distill train.")
    ] = None
    on_bad_image: OnBadImage = "skip"

    @property
    def data_options(self) -> DataOptions:
        """The data set's form."""
        return DataOptions(self.image_column, self.caption_column, self.split)
