"""`edgeclip prune`: rows of files that are gone."""

from __future__ import annotations

import logging
from typing import Annotated

from msgspec import Meta

from edgeclip.cli.options import Db, Json
from edgeclip.settings import Settings

logger = logging.getLogger(__name__)


class PruneSettings(Settings, frozen=True, kw_only=True):
    """Which index, and what of it."""

    folders: Annotated[
        list[str], Meta(description="Folders whose missing files go even if the disk may only be away.")
    ] = []
    db: Db
    as_json: Json = False


def command(settings: PruneSettings) -> None:
    """Remove the rows of files that are gone from an index, and say which; files themselves are never touched.

    Rows below an indexed folder that is missing or empty stay, for it may be a disk that is away, unless it is named.
    """
    from edgeclip.cli.console import print_json_line
    from edgeclip.files import printable
    from edgeclip.search import Index
    from edgeclip.search.rows import as_record

    with Index.open(settings.db) as index:
        pruned = index.prune(settings.folders)
    if settings.as_json:
        print_json_line(as_record(pruned))
        return
    for path in pruned.removed:
        print(f"removed  {printable(path)}")
    print(f"{printable(str(settings.db))}  {len(pruned.removed)} rows removed")
    for folder, count in pruned.kept.items():
        logger.warning(
            "kept: %d missing files below %s, which may be a disk that is away; name it to remove them too",
            count,
            printable(folder),
        )
