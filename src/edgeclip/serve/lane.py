"""Whose turn it is: all clients share one thread that runs the graphs.

Between two images every text that waits has its turn, so that a text waits for one image at most however many there
are; and after the texts that were waiting comes an image, so that images get on too. A request has one unit of work,
a text or an image, in the lane at a time: a long list delays nobody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

from edgeclip.serve.problems import BusyError

Kind = Literal["text", "image"]
T = TypeVar("T")


class _Unit(NamedTuple):
    work: Callable[[], Any]
    done: asyncio.Future[Any]


class Lane:
    """One thread, and who waits for it. For the event loop's thread alone."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: dict[Kind, deque[_Unit]] = {"text": deque(), "image": deque()}
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edgeclip-lane")
        self._turns = asyncio.ensure_future(self._take_turns())
        self.requests = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A request's place among those that are at work or wait.

        Raises:
            BusyError: there is none left.
        """
        if self.requests >= self._room:
            raise BusyError(
                f"{self.requests} requests at work already",
                expected=f"at most {self._room}",
                fix="try again in a second",
            )
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    async def run(self, kind: Kind, work: Callable[[], T]) -> T:
        """Do one unit of work when its turn comes; cancelled before, it is not done.

        Raises:
            Exception: what the work raises.
        """
        unit = _Unit(work, asyncio.get_running_loop().create_future())
        self._waiting[kind].append(unit)
        self._wake.set()
        return await unit.done

    async def close(self) -> None:
        """End the thread; whoever waits still, waits for nothing."""
        self._turns.cancel()
        await asyncio.gather(self._turns, return_exceptions=True)
        self._thread.shutdown()

    async def _take_turns(self) -> None:
        texts, images = self._waiting["text"], self._waiting["image"]
        while True:
            await self._wake.wait()
            for _ in range(len(texts)):
                await self._do(texts.popleft())
            if images:
                await self._do(images.popleft())
            if not texts and not images:
                self._wake.clear()

    async def _do(self, unit: _Unit) -> None:
        if unit.done.cancelled():
            return
        begun = asyncio.get_running_loop().run_in_executor(self._thread, unit.work)
        await asyncio.wait([begun])
        if unit.done.cancelled():
            begun.exception()  # which nobody waits for
        elif error := begun.exception():
            unit.done.set_exception(error)
        else:
            unit.done.set_result(begun.result())
