"""An index made anew with another bundle, in place: until that is whole, the former one stays in use.

The new vectors are gathered in a database beside it, which an interrupted run leaves for the next one.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeclip.errors import DataError
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.search.adding import Adding
from edgeclip.search.database import Database, create
from edgeclip.search.rows import Added

REPLACE = """
DELETE FROM photos;
DELETE FROM vectors;
DELETE FROM broken;
DELETE FROM calibration;
DELETE FROM meta WHERE key != 'source';
INSERT INTO vectors SELECT id + {newest}, hash, width, height, embedding FROM made.vectors;
INSERT INTO photos (path, size, mtime_ns, taken, vector)
    SELECT path, size, mtime_ns, taken, vector + {newest} FROM made.photos;
INSERT INTO broken SELECT * FROM made.broken;
INSERT INTO meta SELECT * FROM made.meta;
"""

NEWEST = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'vectors'"


def reindex(database: Database, clip: ClipRuntime, meta: dict[str, Any], *, workers: int) -> Added:
    """Embed every indexed picture with another bundle; the caller keeps other processes out.

    Raises:
        EdgeclipError: there is an indexed folder that can't be read, whose rows would be lost.
        OSError: the disk is full, and such.
    """
    path = staging_path(database.path)
    made = _staging(path, meta)
    try:
        names = database.rows("SELECT path FROM photos ORDER BY path", of=tuple[str])
        paths = [database.path_of(name) for (name,) in names]
        added = Adding(made, clip, workers=workers).run(paths, ())
        if added.unreadable:
            first, count = added.unreadable[0], len(added.unreadable)
            raise DataError(
                f"{count} indexed pictures that can't be read now (first: {first})",
                expected="all of them, for their vectors can't be taken over",
                fix="connect their disk, or remove them with edgeclip prune",
            )
    finally:
        made.close()
    ((newest,),) = database.rows(NEWEST, of=tuple[int])
    database.rows("ATTACH ? AS made", (str(path),))
    try:
        with database.transaction() as connection:
            for statement in REPLACE.format(newest=newest).split(";"):
                connection.execute(statement)
    finally:
        database.rows("DETACH made")
    remove_staging(database.path)
    return added


def staging_path(path: Path) -> Path:
    """Where the new vectors are gathered."""
    return path.with_name(f".{path.name}.edgeclip-reindex")


def remove_staging(path: Path) -> None:
    """Remove what was gathered."""
    for suffix in ("", "-wal", "-shm"):
        staging_path(path).with_name(staging_path(path).name + suffix).unlink(missing_ok=True)


def _staging(path: Path, meta: dict[str, Any]) -> Database:
    """The database that an earlier run has begun with the same bundle, or a new one."""
    with suppress(DataError):
        found = Database(path)
        if found.meta.fingerprint == meta["fingerprint"]:
            return found
        found.close()
    create(path, meta)
    return Database(path)
