"""`edgeclip index`: the pictures of folders into an index."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Meta

from edgeclip.cli.options import Json
from edgeclip.errors import ConfigError
from edgeclip.settings import Settings

if TYPE_CHECKING:
    from edgeclip.search import Added

logger = logging.getLogger(__name__)

LEFT_OUT = 3
"""Exit code where pictures were left out, as of `edgeclip embed`."""


class IndexSettings(Settings, frozen=True, kw_only=True):
    """What to index, and where to."""

    folders: Annotated[list[str], Meta(description="Folders, or pictures.")] = []
    db: Annotated[Path, Meta(description="The index, an SQLite file; made where there is none.")]
    bundle: Annotated[
        str | None,
        Meta(description="builtin:tabletop, a folder, or a hub id; by default what the index was made with."),
    ] = None
    exclude: Annotated[
        list[str], Meta(description="A pattern of names or paths that are left out; may be given again.")
    ] = []
    workers: Annotated[
        Annotated[int, Meta(ge=0, le=256)] | None,
        Meta(description="Pictures worked on at once; as many as processors by default."),
    ] = None
    as_json: Json = False


def command(settings: IndexSettings) -> None:
    """Index pictures, so that `edgeclip search` finds them. Run again, it takes up what is new, changed or moved.

    Rows of files that are gone stay until `edgeclip prune`. Exit code 3: done, but pictures were left out.
    """
    from edgeclip.bulk.listing import check_paths
    from edgeclip.cli.console import print_json
    from edgeclip.search import Index

    check_paths(settings.folders)
    if settings.bundle is None and not settings.db.exists():
        raise ConfigError(
            f"a new index {settings.db} without `bundle`",
            expected="what to make it with",
            fix="add `bundle` builtin:tabletop, a bundle's folder, or a hub id",
        )
    with Index.open(settings.db, settings.bundle) as index:
        added = index.add(settings.folders, exclude=settings.exclude, workers=settings.workers)
    if settings.as_json:
        print_json(added)
    else:
        _tell(settings.db, added)
    if added.broken or added.known_broken or added.unreadable:
        raise typer.Exit(LEFT_OUT)


def _tell(db: Path, added: Added) -> None:
    from collections import Counter

    from edgeclip.bulk.listing import in_words
    from edgeclip.files import printable

    counts = {"new": added.encoded, "copies": added.copied, "moved": added.moved, "unchanged": added.unchanged}
    print(f"{db}  {added.found} pictures: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    for folder in added.unreadable:
        logger.warning("can't be read, rows kept: %s", printable(folder))
    if told := in_words(Counter(added.skipped)):
        logger.info("not read by this version: %s", told)
    if added.beside:
        logger.info("raw files left out for the JPEG beside them: %d", added.beside)
    if added.broken or added.known_broken:
        logger.warning(
            "broken pictures left out: %d, %d of them as before", added.broken + added.known_broken, added.known_broken
        )
