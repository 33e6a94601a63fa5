"""What a caller may give where several items are asked for: any iterable of them, or one."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Set
from typing import Any, SupportsIndex

import numpy as np

from edgeclip.config import check_range
from edgeclip.errors import InputError


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
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise InputError(f"{name} {value!r}", expected=f"a whole number from {low} to {high}", fix=f"use {low}")
    check_range(name, int(value), low, high)
