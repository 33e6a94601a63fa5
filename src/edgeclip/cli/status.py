"""`edgeclip status`: what is in an index."""

from __future__ import annotations

from datetime import datetime

from edgeclip.cli.options import Db, Json
from edgeclip.settings import Settings


class StatusSettings(Settings, frozen=True, kw_only=True):
    """Which index."""

    db: Db
    as_json: Json = False


def command(settings: StatusSettings) -> None:
    """How many pictures an index has, of which folders and dates, and which of their files can't be read."""
    from edgeclip.cli.console import print_json_line
    from edgeclip.files import printable
    from edgeclip.search import Index
    from edgeclip.search.rows import as_record

    with Index.open(settings.db) as index:
        status = index.status()
    if settings.as_json:
        print_json_line(as_record(status))
        return
    size = f"{status.bytes / 1e6:.1f} MB" + (f", {status.bytes / status.photos:.0f} a picture" if status.photos else "")
    print(f"{printable(str(settings.db))}  {status.photos} pictures, {status.contents} that differ, {size}")
    print(f"bundle   {printable(status.bundle)}, fingerprint {status.fingerprint}")
    if status.first is not None and status.last is not None:
        first, last = (datetime.fromtimestamp(moment).date() for moment in (status.first, status.last))
        print(f"taken    {first} to {last}")
    for root in status.roots:
        print(f"folder   {printable(root)}")
    for path, reason in status.broken.items():
        print(f"broken   {printable(path)}: {' '.join(printable(reason).split())}")
