"""Which rows are of files that are gone, told from those of a disk that is only away."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from edgeclip.bulk.path_names import path_to_text
from edgeclip.search.database import DROP_UNUSED, Database
from edgeclip.search.rows import Pruned
from edgeclip.search.walk import is_gone


def prune(database: Database, folders: Sequence[str]) -> Pruned:
    """Remove the rows of files that are gone.

    An indexed folder that is missing, empty or can't be read may be a disk that is away: its rows are kept, unless the
    folder is among those that are named.

    Raises:
        EdgeclipError, OSError: the index can't be written.
    """
    roots = sorted(roots_of(database), key=len, reverse=True)
    named = [os.path.realpath(folder) for folder in folders]
    away = [root for root in roots if is_away(root) and not any(is_below(root, folder) for folder in named)]
    removed, kept = [], Counter[str]()
    for table in ("photos", "broken"):
        for (name,) in database.rows(f"SELECT path FROM {table} ORDER BY path", of=tuple[str]):  # noqa: S608 - names from here
            path = database.path_of(name)
            if not (is_gone(path) or any(is_below(path, folder) and not os.path.lexists(path) for folder in named)):
                continue
            root = next((root for root in away if is_below(path, root)), None)
            if root is not None:
                kept[root] += table == "photos"
            else:
                removed.append((table, path))
    with database.transaction() as connection:
        for table in ("photos", "broken"):
            names = [(path_to_text(path),) for place, path in removed if place == table]
            connection.executemany(f"DELETE FROM {table} WHERE path = ?", names)  # noqa: S608
        connection.execute(DROP_UNUSED)
        gone = [root for root in roots if is_gone(root) and any(is_below(root, folder) for folder in named)]
        connection.executemany("DELETE FROM roots WHERE path = ?", [(path_to_text(root),) for root in gone])
    return Pruned(removed=tuple(path for table, path in removed if table == "photos"), kept=dict(kept))


def roots_of(database: Database) -> list[str]:
    """The folders that were indexed."""
    return [database.path_of(path) for (path,) in database.rows("SELECT path FROM roots", of=tuple[str])]


def is_away(root: str) -> bool:
    """Whether an indexed folder may be a disk that is not there: missing, unreadable, or empty as a mount point is."""
    if os.path.isfile(root):  # noqa: PTH113 - any bytes may be its name
        return False
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder's or in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
