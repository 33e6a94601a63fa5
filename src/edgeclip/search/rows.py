"""What an index answers with."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from edgeclip.bulk.path_names import path_to_text

DAY = 86_400
EARLIEST, LATEST = -62_135_596_800 + DAY, 253_402_300_800 - DAY
"""The years 1 to 9999, without the days that are another year's in some time zone."""
Moment = Annotated[float, msgspec.Meta(ge=EARLIEST, lt=LATEST)]
"""Seconds since 1970."""


class Photo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One indexed picture.

    Attributes:
        id: the row's number, which stays the file's as long as it is indexed.
        path: absolute, as the operating system knows it; bytes that are no UTF-8 are surrogates.
        taken: seconds since 1970: EXIF's DateTimeOriginal, in local time where it tells no zone; else the file's date.
        width, height: in pixels, upright.
    """

    id: int
    path: str
    taken: float
    width: int
    height: int


class Result(Photo, frozen=True, kw_only=True, gc=False):
    """A picture that was found.

    Attributes:
        score: cosine with the query, -1 to 1.
        alike: paths of the near-duplicates that this row stands for, the best first.
    """

    score: float
    alike: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a search comes to.

    Attributes:
        results: the nearest pictures, the best first, whether or not they are any good.
        is_match: whether the best of them is what was asked for, as far as that can be told.
        confidence: by how many standard deviations the best is above what texts without a picture come to, see
            `search.confidence`; None for pictures, for queries in parts, and in small indexes.
    """

    results: tuple[Result, ...]
    is_match: bool
    confidence: float | None


class Added(msgspec.Struct, kw_only=True):
    """What indexing folders came to, in files.

    Attributes:
        found: pictures that were there.
        encoded: of these with a content that had no vector.
        unchanged: had their row already.
        copied: new names of contents that had a vector already.
        moved: rows that follow their file to another place.
        broken: can't be decoded; with `known_broken` those that an earlier run has told of.
        beside: raw pictures that were left out for the JPEG beside them.
        skipped: files that are no picture, by suffix.
        unreadable: folders that can't be read, whose rows are kept.
        written, withdrawn: points that a collection was given, and that were removed from it.
    """

    found: int = 0
    encoded: int = 0
    unchanged: int = 0
    copied: int = 0
    moved: int = 0
    broken: int = 0
    known_broken: int = 0
    beside: int = 0
    skipped: dict[str, int] = {}
    unreadable: list[str] = []
    written: int = 0
    withdrawn: int = 0


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What pruning came to.

    Attributes:
        removed: paths whose rows are gone, since their files are.
        kept: how many missing files there are below folders that can't be read, by folder.
    """

    removed: tuple[str, ...]
    kept: dict[str, int]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is in an index.

    Attributes:
        photos: files with a row.
        contents: of these that differ.
        broken: files that can't be decoded, with the reason.
        roots: the folders that were indexed.
        bundle: what the index was made with: a folder, a hub id, or builtin:tabletop.
        fingerprint: that bundle's.
        embedding_size: E.
        bytes: of the files on disk, those of the scan included.
        first, last: dates of the earliest and of the latest picture, in seconds since 1970; None where there is none.
    """

    photos: int
    contents: int
    broken: dict[str, str]
    roots: tuple[str, ...]
    bundle: str
    fingerprint: str
    embedding_size: int
    bytes: int
    first: float | None
    last: float | None


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures that are nearly the same.

    Attributes:
        paths: of two files or more, in the order in which they were indexed.
        score: the least cosine of one of them and the first.
    """

    paths: tuple[str, ...]
    score: float


def as_record(row: msgspec.Struct) -> dict[str, Any]:
    """An answer as JSON has it: paths that are no UTF-8 as `file:` URIs, see `bulk.path_names`."""
    return {key: _in_text(value, key) for key, value in msgspec.structs.asdict(row).items()}


PATHS = {"path", "paths", "alike", "removed", "roots", "unreadable", "broken", "kept"}
"""Fields that hold paths: one, several, or as keys."""


def _in_text(value: Any, key: str) -> Any:
    if key not in PATHS or isinstance(value, int):
        return value
    if isinstance(value, str):
        return path_to_text(value)
    return {path_to_text(k): v for k, v in value.items()} if isinstance(value, dict) else list(map(path_to_text, value))
