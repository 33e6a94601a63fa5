"""OUT.edgeclip.json: what all rows of a file of embeddings have in common, and what a killed run has left to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from edgeclip.bulk.known_rows import is_there
from edgeclip.bulk.path_names import path_from_text
from edgeclip.config import Config
from edgeclip.errors import MALFORMED, ConfigError, DataError
from edgeclip.files import part_of, read_whole, remove_part, write_atomically
from edgeclip.runtime.embedding_dtype import EmbeddingDtype


class Origin(Config, frozen=True, kw_only=True):
    """The content of OUT.edgeclip.json.

    Attributes:
        fingerprint: of the bundle that all rows are of.
        rows: what they are of.
        dtype: of their numbers.
        embedding_size: E.
        root: of paths, what they are relative to, as `path_to_text` writes it.
        finished: how many rows the last run that came to its end has left.
        replacing: whether files without outdated rows are about to take the place of those with them.
    """

    fingerprint: str
    rows: Literal["path", "text"]
    dtype: EmbeddingDtype
    embedding_size: int
    root: str | None = None
    finished: int = 0
    replacing: bool = False


def files_of(path: Path) -> tuple[Path, ...]:
    """The file itself, and the one with its rows where that is another; which is the last."""
    return (path,) if path.suffix == ".jsonl" else (path, path.with_name(f"{path.name}.rows.jsonl"))


def note_of(path: Path) -> Path:
    """Where the origin is noted."""
    return path.with_name(f"{path.name}.edgeclip.json")


def write_note(path: Path, origin: Origin) -> None:
    """Note it."""
    write_atomically(note_of(path), msgspec.json.encode(origin) + b"\n")


def put_in_place(path: Path, origin: Origin) -> None:
    """Let what was written take its place, wholly: once the note says so, the next run does what this one has not."""
    write_note(path, msgspec.structs.replace(origin, replacing=True))
    for file in files_of(path):
        if part_of(file).exists():
            part_of(file).replace(file)
    write_note(path, msgspec.structs.replace(origin, replacing=False))


def root_folder(origin: Origin) -> Path:
    """What the paths of the rows are relative to."""
    return Path(path_from_text(origin.root or ""))


def has_moved(origin: Origin, root: str, names: Sequence[str]) -> bool:
    """Whether the rows' files, none of which is where it was, are at another root."""
    here = Path(path_from_text(root))
    return (
        root != origin.root
        and not any(is_there(root_folder(origin), name) for name in names)
        and any(is_there(here, name) for name in names)
    )


def claim(path: Path, origin: Origin) -> Origin:
    """Note which bundle a new file belongs to, or make sure that an existing one belongs to this; what killed runs have
    left to do or to remove is done.

    Raises:
        ConfigError: the file is another bundle's, of another kind, an earlier version's, or not edgeclip's at all.
        DataError: the note was changed.
    """
    found = _read_note(path, origin) if path.exists() else None
    if found and found.replacing:
        put_in_place(path, found)
    for file in (*files_of(path), note_of(path)):
        remove_part(file)
    if found:
        return msgspec.structs.replace(found, replacing=False)
    write_note(path, origin)
    return origin


def _read_note(path: Path, origin: Origin) -> Origin:
    note = note_of(path)
    try:
        found = msgspec.json.decode(read_whole(note), type=Origin)
    except FileNotFoundError as error:
        raise ConfigError(
            f"`out` {path}, which edgeclip did not write", expected="a new file", fix="give another `out`"
        ) from error
    except MALFORMED as error:
        raise DataError(f"{note} ({error})", expected="what embed wrote", fix="give another `out`") from error
    for field in ("fingerprint", "rows", "dtype", "embedding_size"):
        theirs, ours = getattr(found, field), getattr(origin, field)
        if theirs != ours:
            raise ConfigError(
                f"`out` {path}, whose {field} is {theirs}", expected=f"{ours}, as asked for", fix="give another `out`"
            )
    if found.rows == "path" and found.root is None:
        raise ConfigError(
            f"`out` {path} of an earlier version, which noted no sizes and dates of files",
            expected="rows of which it is known whether their files have changed",
            fix="delete it and embed anew, or give another `out`",
        )
    return found
