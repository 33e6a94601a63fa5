"""`edgeclip index`: the pictures of folders into an index."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Meta

from edgeclip.cli.options import ImageWorkers, Json
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
    to: Annotated[
        str | None,
        Meta(
            description="Copy the index to a Qdrant server too: qdrant://HOST:PORT/COLLECTION; needs the extra scale."
        ),
    ] = None
    exclude: Annotated[
        list[str], Meta(description="A pattern of names or paths that are left out; may be given again.")
    ] = []
    workers: ImageWorkers = None
    as_json: Json = False


def command(settings: IndexSettings) -> None:
    """Index pictures, so that `edgeclip search` finds them. Run again, it takes up what is new, changed or moved.

    Rows of files that are gone stay until `edgeclip prune`. Exit code 3: done, but pictures were left out.
    """
    from edgeclip.search import Index
    from edgeclip.search.database import check_file

    if not settings.folders:
        raise ConfigError("no `folders`", expected="folders with pictures", fix="add one")
    check_file(settings.db)
    if settings.bundle is None and not settings.db.exists():
        raise ConfigError(
            f"a new index {settings.db} without `bundle`",
            expected="what to make it with",
            fix="add `bundle` builtin:tabletop, a bundle's folder, or a hub id",
        )
    with Index.open(settings.db, settings.bundle) as index:
        added = index.add(settings.folders, exclude=settings.exclude, workers=settings.workers, to=settings.to)
    tell(settings.db, added, to=settings.to, as_json=settings.as_json)


def tell(db: Path, added: Added, *, to: str | None = None, as_json: bool) -> None:
    """Say what a run has come to, and end with `LEFT_OUT` where pictures were.

    Raises:
        typer.Exit: they were.
    """
    from collections import Counter

    from edgeclip.bulk.listing import in_words
    from edgeclip.cli.console import print_json_line
    from edgeclip.files import printable
    from edgeclip.search.rows import as_record

    if as_json:
        print_json_line(as_record(added))
    else:
        counts = {"new": added.encoded, "copies": added.copied, "moved": added.moved, "unchanged": added.unchanged}
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"{printable(str(db))}  {added.found} pictures: {told}")
        if to is not None:
            print(f"{printable(to)}  {added.written} points written, {added.withdrawn} removed")
    for folder in added.unreadable:
        logger.warning("can't be read, rows kept: %s", printable(folder))
    if told := in_words(Counter(added.skipped)):
        logger.info("not read by this version: %s", told)
    if added.beside:
        logger.info("raw files left out for the JPEG beside them: %d", added.beside)
    if broken := added.broken + added.known_broken:
        logger.warning("broken pictures left out: %d, %d of them as before", broken, added.known_broken)
    if broken or added.unreadable:
        raise typer.Exit(LEFT_OUT)
