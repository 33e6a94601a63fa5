"""What a caller may give where several items are asked for: any iterable of them, or one."""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from edgeclip.config import check_range
from edgeclip.errors import ConfigError, InputError


def items_of(given: object, one: tuple[type, ...], argument: str, expected: str) -> Iterable[Any]:
    """The items that were given: those of any iterable with an order, or the one item itself.

    Args:
        given: what the caller gave.
        one: the types of an item.
        argument: its name in messages, in backquotes.
        expected: what items are, for messages.

    Raises:
        InputError: neither; a mapping, a set or an open file, whose order or items are not those that were meant.
    """
    if isinstance(given, one):
        return (given,)
    unclear = isinstance(given, str | bytes | bytearray | Mapping | Set | io.IOBase)
    if unclear or not isinstance(given, Iterable) or (isinstance(given, np.ndarray) and given.ndim == 0):
        raise InputError(
            f"{argument} of the type {type(given).__name__}",
            expected=f"{expected}: one, or any iterable of them",
            fix="give a list of them",
        )
    return given


def check_item(item: object, one: tuple[type, ...], index: int, argument: str, expected: str) -> None:
    """Refuse an item of another type.

    Raises:
        InputError: naming its place.
    """
    if not isinstance(item, one):
        raise InputError(
            f"{argument} with one of the type {type(item).__name__} at index {index}",
            expected=expected,
            fix="convert it, or leave it out",
        )


def texts_of(texts: str | Iterable[str], argument: str = "`texts`") -> list[str]:
    """One text or any iterable of texts, as a list.

    Raises:
        InputError: something else, or an item that is no string.
    """
    items = list(items_of(texts, (str,), argument, "strings"))
    for index, text in enumerate(items):
        check_item(text, (str,), index, argument, "strings")
    return list(map(str, items))  # NumPy's strings too


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is no whole number within [low, high].

    Raises:
        InputError: it is none.
        ConfigError: it is out of range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # that's asked
    except TypeError:
        number = None
    if number is None:
        raise InputError(f"{name} {value!r}", expected=f"a whole number from {low} to {high}", fix=f"use {low}")
    check_range(name, number, low, high)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices.

    Raises:
        ConfigError: naming them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name} {value!r}", expected=" or ".join(choices), fix=f"use {name} {choices[0]}")


def check_path(name: str, value: object) -> None:
    """Refuse what can't be the name of a file or folder.

    Raises:
        InputError: it is no string or Path, or has letters that no name has.
    """
    try:
        possible = isinstance(value, str | Path) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise InputError(f"{name} {value!r}", expected="a path", fix="give one as a string or a Path")
