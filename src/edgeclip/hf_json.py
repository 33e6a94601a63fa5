"""Read foreign JSON files field by field, with errors that name the file and the field."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeclip.errors import MALFORMED, CheckpointError
from edgeclip.files import read_whole

T = TypeVar("T")


def shown(value: object) -> str:
    """A value of a foreign file in an error: its beginning, where it is long."""
    return reprlib.repr(value)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(read_whole(path))
    except (OSError, *MALFORMED) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error})", expected="a JSON object", fix="download it again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}, a JSON {type(value).__name__}", expected="an object", fix="download it again")
    return value


def section(raw: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    """A nested object; missing or null counts as empty, as in transformers."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} with {key} {shown(value)}", expected="an object", fix=f"write {key} as {{...}}, or leave it out"
        )
    return value


def integer(raw: dict[str, Any], key: str, path: Path, default: int | None = None) -> int:
    """A non-negative whole number; a list of equal ones counts as one."""
    value = raw.get(key, default)
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise CheckpointError(f"{path} with {key} {shown(value)}", expected="a whole number", fix=f"write {key} as one")
    return value


def number(raw: dict[str, Any], key: str, path: Path, default: float) -> float:
    """A finite number."""
    value = raw.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 1e9:
        raise CheckpointError(f"{path} with {key} {shown(value)}", expected="a number", fix=f"write {key} as one")
    return float(value)


def triple(
    raw: dict[str, Any], key: str, path: Path, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Three finite numbers, one a colour."""
    value = raw.get(key, default)
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(isinstance(v, int | float) and abs(v) < 1e9 for v in value)
    ):
        raise CheckpointError(
            f"{path} with {key} {shown(value)}",
            expected="three numbers",
            fix=f"write {key} as [0.5, 0.5, 0.5] or the like",
        )
    return (float(value[0]), float(value[1]), float(value[2]))


def own(raw: dict[str, Any], key: str, path: Path, type: type[T]) -> T:
    """The value of a key of ours, which others pass over."""
    try:
        return msgspec.convert(raw.get(key), type)
    except MALFORMED as error:
        raise CheckpointError(
            f"{path} with {key} {shown(raw.get(key))} ({error})",
            expected="what edgeclip has written",
            fix="export it again",
        ) from error
