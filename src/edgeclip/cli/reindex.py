"""`edgeclip reindex`: an index made anew with another bundle."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edgeclip.cli.index import tell
from edgeclip.cli.options import Db, ImageWorkers, Json
from edgeclip.settings import Settings


class ReindexSettings(Settings, frozen=True, kw_only=True):
    """Which index, and what to make it with."""

    db: Db
    bundle: Annotated[
        str | None,
        Meta(description="builtin:tabletop, a folder, or a hub id; by default where the present one was found."),
    ] = None
    workers: ImageWorkers = None
    as_json: Json = False


def command(settings: ReindexSettings) -> None:
    """Embed every picture of an index anew. The former index stays in use until that is done, and if it fails.

    Interrupted at any moment, the next run goes on.
    """
    from edgeclip.search import Index

    tell(settings.db, Index.reindex(settings.db, settings.bundle, workers=settings.workers), as_json=settings.as_json)
