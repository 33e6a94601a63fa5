"""Options of the command line alone, and those that commands on many images share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.settings import ForeignPrecision, OnBadImage, Settings

Json = Annotated[bool, Meta(description="Print JSON.", extra={"flags": ("--json",)})]
Resume = Annotated[bool, Meta(description="Go on from the state in the output folder.")]
OutFolder = Annotated[Path, Meta(description="Folder for what is made.")]
Bundle = Annotated[str, Meta(description="Made by edgeclip export; builtin:tabletop, a folder, or a hub id.")]

Db = Annotated[Path, Meta(description="An index made by edgeclip index.")]
ImageWorkers = Annotated[
    Annotated[int, Meta(ge=0, le=256)] | None,
    Meta(description="Images worked on at once; as many as processors by default."),
]


class BulkSettings(Settings, frozen=True, kw_only=True):
    """What commands on many images have in common."""

    bundle: Bundle
    paths: Annotated[list[str], Meta(description="Images, folders, or - for a list on standard input.")] = []
    precision: ForeignPrecision = None
    workers: ImageWorkers = None
    threads: Annotated[int, Meta(ge=1, le=256, description="Threads of one run of the graph.")] = 1
    on_bad_image: OnBadImage = "skip"
