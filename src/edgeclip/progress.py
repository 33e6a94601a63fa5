"""What long work tells of itself: to an observer that a program installs, and to nobody where there is none.

The library draws and prints nothing. Its words go to `logging.getLogger("edgeclip")`, its progress to `observe`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeAlias

Advance: TypeAlias = Callable[..., None]
"""Call as advance(n) when n more items are done, and with note="..." to say something beside the bar."""


class Observer(Protocol):
    """Whoever shows progress, such as the command line."""

    def task(self, description: str, total: int | None, unit: str | None) -> AbstractContextManager[Advance]:
        """One task begins; it ends with the block, and what the block is given is told how far it is.

        Args:
            description: what is done.
            total: of how many items, None where that isn't known.
            unit: what the items are, for a rate; None for no rate.
        """
        ...


class _Nobody:
    """The observer where none is installed."""

    def task(self, description: str, total: int | None, unit: str | None) -> AbstractContextManager[Advance]:
        return nullcontext(ignore)


def ignore(n: int = 1, note: str | None = None) -> None:
    """An `Advance` that tells nobody."""


_observer: Observer = _Nobody()


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Have an observer told of every task of this process until the block ends."""
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def task(description: str, total: int | None, *, unit: str | None = None) -> AbstractContextManager[Advance]:
    """Tell the observer of one task; see `Observer.task`."""
    return _observer.task(description, total, unit)
