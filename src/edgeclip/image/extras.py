"""Formats that are read with a package more: which it is, and which files are theirs."""

from __future__ import annotations

from importlib.util import find_spec

PACKAGES = {"HEIF": ("heic", "pillow_heif"), "RAW": ("raw", "rawpy")}
"""By format: the extra, and what it brings."""
CANON_NIKON_SONY = {".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf"}
OTHER_MAKERS = {".3fr", ".dcr", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".orf", ".pef", ".raf", ".rw2", ".rwl"}
SUFFIXES = {
    "HEIF": frozenset((".heic", ".heics", ".heif", ".heifs", ".hif")),
    "RAW": frozenset(CANON_NIKON_SONY | OTHER_MAKERS | {".dng", ".raw", ".srw", ".x3f"}),
}
"""In lower case; `.hif` is Canon's and Sony's."""


def is_missing(format_: str) -> bool:
    """Whether a format needs a package that isn't there."""
    return format_ in PACKAGES and find_spec(PACKAGES[format_][1]) is None


def extra_of(suffix: str) -> str | None:
    """The extra that files of this lower-case suffix need, where it isn't there."""
    return next((PACKAGES[kind][0] for kind in PACKAGES if suffix in SUFFIXES[kind] and is_missing(kind)), None)
