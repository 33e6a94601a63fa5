"""Order, bounds and pauses of the bulk pipeline, with functions that are watched."""

import itertools
import queue
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from edgeclip.errors import ImageError
from edgeclip.runtime.stream import FLUSH, Flush, in_batches, in_groups, in_order, latest, threads

BROKEN = ImageError("x", expected="y", fix="z")
PIXELS = np.zeros((2, 2, 3), np.uint8)


def test_results_come_in_order_whatever_the_threads_take():
    later_is_done = [threading.Event() for _ in range(20)]

    def slow_at_first(n: int) -> int:
        if n % 4 == 0:
            later_is_done[n + 1].wait()
        later_is_done[n].set()
        return n * n

    with threads(4) as pool:
        assert list(in_order(slow_at_first, range(20), pool, ahead=4)) == [n * n for n in range(20)]


def test_an_endless_list_is_read_only_a_little_ahead():
    read = itertools.count()
    with threads(2) as pool:
        results = in_order(lambda n: n, read, pool, ahead=3)
        assert list(itertools.islice(results, 10)) == list(range(10))
        results.close()
    assert next(read) <= 10 + 3 + 1


def test_before_a_wait_everything_begun_is_delivered():
    delivered: list[int | Flush] = []

    def items():
        yield from (1, 2, 3)
        yield FLUSH
        assert delivered == [1, 2, 3]
        yield 4

    with threads(2) as pool:
        for result in in_order(lambda n: n, items(), pool, ahead=10):
            if not isinstance(result, Flush):
                delivered.append(result)
    assert delivered == [1, 2, 3, 4]


def test_an_error_of_a_thread_reaches_the_caller_in_its_place_and_the_rest_is_dropped():
    begun = []

    def fail_at_2(n: int) -> int:
        begun.append(n)
        if n == 2:
            raise ValueError("two")
        return n

    results = []
    with pytest.raises(ValueError, match="two"), threads(1) as pool:
        results.extend(iter_all(in_order(fail_at_2, itertools.count(), pool, ahead=5), results))
    assert results == [0, 1]
    assert max(begun) <= 2 + 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeclip")]


def iter_all(results, into):
    for result in results:
        into.append(result)
    return ()


def test_batches_are_filled_with_intact_images():
    images = [("a", PIXELS), ("b", BROKEN), FLUSH, ("c", PIXELS), ("d", BROKEN), ("e", PIXELS)]
    names = [batch if batch is FLUSH else [name for name, _ in batch] for batch in in_batches(images, 2)]
    assert names == [FLUSH, ["a", "b", "c"], ["d"], ["e"]]


def test_groups():
    assert list(in_groups([1, 2, FLUSH, 3, 4, 5], 2)) == [[1, 2], FLUSH, [3, 4], [5]]
    assert list(in_groups([], 2)) == []


class Camera:
    """Frames that come when a test sends them, and what became of the thread that reads them."""

    def __init__(self) -> None:
        self.sent: queue.Queue[int | Exception | None] = queue.Queue()
        self.taken: queue.Queue[None] = queue.Queue()
        self.thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[int]:
        self.thread = threading.current_thread()
        while True:
            self.taken.put(None)  # whatever came before is in the box
            item = self.sent.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def send(self, *items: int | Exception | None) -> None:
        """Send frames and wait for each until it has been read."""
        for item in items:
            self.sent.put(item)
            if isinstance(item, int):
                self.taken.get()


def test_the_newest_frame_is_the_next_and_older_ones_are_dropped():
    camera = Camera()
    frames = latest(camera)
    camera.sent.put(0)
    assert next(frames) == 0
    camera.taken.get()
    camera.taken.get()  # frame 0 is read, and the next one waited for
    camera.send(1, 2, 3)
    assert next(frames) == 3
    camera.send(4, None)
    camera.thread.join()
    assert list(frames) == [4]  # what was read before the end is not lost


def test_an_error_of_reading_is_raised_after_what_was_read_before():
    camera = Camera()
    frames = latest(camera)
    for item in (0, ValueError("unplugged")):
        camera.sent.put(item)
    assert next(frames) == 0
    with pytest.raises(ValueError, match="unplugged"):
        next(frames)


def test_no_frames_are_none():
    assert list(latest([])) == []


def test_closing_ends_the_thread_with_the_next_frame():
    camera = Camera()
    frames = latest(camera)
    camera.sent.put(0)
    assert next(frames) == 0
    frames.close()
    camera.sent.put(1)
    camera.thread.join()
    assert not camera.thread.is_alive()
