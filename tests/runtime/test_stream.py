"""Order, bounds and pauses of the bulk pipeline, with functions that are watched."""

import itertools
import threading
import time

import numpy as np
import pytest

from edgeclip.errors import ImageError
from edgeclip.runtime.stream import FLUSH, Flush, in_batches, in_groups, in_order, threads

BROKEN = ImageError("x", expected="y", fix="z")
PIXELS = np.zeros((2, 2, 3), np.uint8)


def test_results_come_in_order_whatever_the_threads_take():
    def slow_at_first(n: int) -> int:
        time.sleep(0.02 if n % 4 == 0 else 0)
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
