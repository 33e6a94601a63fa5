"""Which pictures a search is among: by date, folder and suffix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote_from_bytes

from msgspec import Meta

from edgeclip.bulk.path_names import URI, path_to_text
from edgeclip.errors import ConfigError
from edgeclip.settings import Settings


class Filters(Settings, frozen=True, kw_only=True):
    """What is true of a picture that may be found; what is None is true of all."""

    after: Annotated[str | None, Meta(description="Taken on this day or later: 2024, 2024-07 or 2024-07-31.")] = None
    before: Annotated[str | None, Meta(description="Taken before this day.")] = None
    in_: Annotated[
        list[str], Meta(description="Only below this folder; may be given again.", extra={"flags": ("--in",)})
    ] = []
    ext: Annotated[list[str], Meta(description="Only files with this suffix, such as jpg; may be given again.")] = []


NO_FILTERS = Filters()


def condition(filters: Filters) -> tuple[str, tuple[Any, ...]]:
    """SQL of a table `photos`, and its values; empty where all may be found.

    Raises:
        ConfigError: a date that is none.
    """
    parts: list[tuple[str, list[Any]]] = []
    if filters.after is not None:
        parts.append(("taken >= ?", [moment("after", filters.after)]))
    if filters.before is not None:
        parts.append(("taken < ?", [moment("before", filters.before)]))
    if filters.in_:
        ranges = [span for folder in filters.in_ for span in _below(folder)]
        parts.append(
            (" OR ".join("(path >= ? AND path < ?)" for _ in ranges), [end for span in ranges for end in span])
        )
    if filters.ext:
        suffixes = ["." + suffix.lower().lstrip(".") for suffix in filters.ext]
        parts.append((" OR ".join("lower(substr(path, ?)) = ?" for _ in suffixes), _ends(suffixes)))
    return " AND ".join(f"({sql})" for sql, _ in parts), tuple(value for _, values in parts for value in values)


def moment(name: str, date: str) -> float:
    """The beginning of a day, month or year in local time, in seconds since 1970.

    Raises:
        ConfigError: it is none.
    """
    for layout in ("%Y-%m-%d", "%Y-%m", "%Y", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(date, layout).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    raise ConfigError(f"`{name}` {date!r}", expected="a date such as 2024-07-31", fix=f"give `{name}` 2024-07-31")


def _below(folder: str) -> list[tuple[str, str]]:
    """Ranges of names that begin with the folder's, as `path_to_text` writes those of any bytes."""
    path = os.path.realpath(folder).rstrip(os.sep)
    starts = {path_to_text(path) + "/", URI + quote_from_bytes(os.fsencode(path)) + "/"}
    return [(start, start[:-1] + chr(ord("/") + 1)) for start in sorted(starts)]


def _ends(suffixes: Sequence[str]) -> list[Any]:
    return [value for suffix in suffixes for value in (-len(suffix), suffix)]
