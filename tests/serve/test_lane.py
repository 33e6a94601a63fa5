from __future__ import annotations

import asyncio
import threading

import pytest

from edgeclip.serve.lane import Lane
from edgeclip.serve.problems import BusyError


def test_between_two_images_all_waiting_texts_have_their_turn():
    order: list[str] = []

    async def main() -> None:
        lane, go_on = Lane(10), threading.Event()

        def first() -> None:
            go_on.wait()
            order.append("image 0")

        units = [asyncio.ensure_future(lane.run("image", first))]
        units += [asyncio.ensure_future(lane.run("image", lambda n=n: order.append(f"image {n}"))) for n in (1, 2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first image is at work
        units += [asyncio.ensure_future(lane.run("text", lambda n=n: order.append(f"text {n}"))) for n in (0, 1)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*units)
        await lane.close()

    asyncio.run(main())
    assert order == ["image 0", "text 0", "text 1", "image 1", "image 2"]


def test_texts_without_end_do_not_keep_images_waiting():
    order: list[str] = []

    async def main() -> None:
        lane = Lane(10)

        async def texts() -> None:
            for number in range(20):
                await lane.run("text", lambda n=number: order.append(f"text {n}"))

        several = [asyncio.ensure_future(texts()) for _ in range(3)]
        await asyncio.sleep(0)
        await lane.run("image", lambda: order.append("image"))
        await asyncio.gather(*several)
        await lane.close()

    asyncio.run(main())
    assert order.index("image") <= 6


def test_what_is_cancelled_before_its_turn_is_not_done():
    done: list[int] = []

    async def main() -> None:
        lane, go_on = Lane(10), threading.Event()
        first = asyncio.ensure_future(lane.run("image", go_on.wait))
        second = asyncio.ensure_future(lane.run("image", lambda: done.append(2)))
        await asyncio.sleep(0)
        second.cancel()
        go_on.set()
        await first
        await lane.run("image", lambda: done.append(3))
        await lane.close()

    asyncio.run(main())
    assert done == [3]


def test_errors_reach_whoever_asked_and_nobody_else():
    async def main() -> list[object]:
        lane = Lane(10)
        units = lane.run("text", lambda: 1 // 0), lane.run("text", lambda: 7)
        results = await asyncio.gather(*units, return_exceptions=True)
        await lane.close()
        return results

    failed, result = asyncio.run(main())
    assert isinstance(failed, ZeroDivisionError)
    assert result == 7


def test_as_many_requests_as_there_is_room_for():
    async def main() -> None:
        lane = Lane(2)
        with lane.place(), lane.place(), pytest.raises(BusyError, match="at most 2"), lane.place():
            pass
        with lane.place():
            assert lane.requests == 1
        await lane.close()

    asyncio.run(main())
