"""Files of an index that are nearly the same, or copies of each other."""

from __future__ import annotations

import numpy as np

from edgeclip.errors import DataError
from edgeclip.files import printable
from edgeclip.search.database import Database
from edgeclip.search.near_duplicates import BLOCK, groups_of
from edgeclip.search.rows import Duplicates
from edgeclip.search.scan import IN_ONE_QUERY, Scan

COPIED = "SELECT vector FROM photos GROUP BY vector HAVING count(*) > 1"


def duplicates(database: Database, scan: Scan) -> tuple[Duplicates, ...]:
    """Groups of two files or more, the largest first.

    Raises:
        DataError: the index is damaged, or was made anew meanwhile.
    """
    uuid, ids_N = database.meta.uuid, np.array(scan.ids(), np.int64)
    groups = [ids_N[rows].tolist() for rows in groups_of(len(ids_N), lambda rows: scan.at(ids_N[rows]))]
    grouped = {id_ for group in groups for id_ in group}
    groups += [[id_] for (id_,) in database.rows(COPIED, of=tuple[int]) if id_ not in grouped]
    found = [(_files(database, group), group) for group in groups]
    found.sort(key=lambda each: (-len(each[0]), each[0]))
    told = tuple(
        Duplicates(paths=tuple(database.path_of(name) for _, name, _ in files), score=_least(scan, files[0][2], group))
        for files, group in found
        if len(files) > 1
    )
    database.follow()
    if database.meta.uuid != uuid:
        raise DataError(
            f"{printable(str(database.path))}, which was made anew meanwhile",
            expected="one that stays as it is until all pairs are compared",
            fix="run it again",
        )
    return told


def _files(database: Database, contents: list[int]) -> list[tuple[int, str, int]]:
    """Number, path and content of the files of these contents, in the order in which they were indexed."""
    files: list[tuple[int, str, int]] = []
    for start in range(0, len(contents), IN_ONE_QUERY):
        part = contents[start : start + IN_ONE_QUERY]
        query = f"SELECT id, path, vector FROM photos WHERE vector IN ({', '.join('?' * len(part))})"  # noqa: S608
        files += database.rows(query, tuple(part), of=tuple[int, str, int])
    return sorted(files)


def _least(scan: Scan, first: int, contents: list[int]) -> float:
    """The least cosine of the first content and one of them."""
    first_E = scan.vector(first)[0]
    parts = (np.array(contents[start : start + BLOCK], np.int64) for start in range(0, len(contents), BLOCK))
    return float(min(np.nanmin(scan.at(part) @ first_E) for part in parts))
