"""`edgeclip dupes`: near-duplicates in an index."""

from __future__ import annotations

import typer

from edgeclip.cli.options import Db, Json
from edgeclip.cli.search import NO_MATCH
from edgeclip.settings import Settings


class DupesSettings(Settings, frozen=True, kw_only=True):
    """Which index."""

    db: Db
    as_json: Json = False


def command(settings: DupesSettings) -> None:
    """Groups of pictures that are nearly the same, the largest first. Exit code 1: there are none.

    Twice as many pictures take four times as long: 100,000 some 10 s, a million a quarter of an hour.
    """
    from edgeclip.cli.console import print_json_line
    from edgeclip.files import printable
    from edgeclip.search import Index
    from edgeclip.search.rows import as_record

    with Index.open(settings.db) as index:
        groups = index.dupes()
    for group in groups:
        if settings.as_json:
            print_json_line(as_record(group))
        else:
            print(f"{group.score:.3f}  " + "\n       ".join(map(printable, group.paths)))
    if not groups:
        raise typer.Exit(NO_MATCH)
