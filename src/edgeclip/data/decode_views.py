"""Decode images in worker processes, in order, with broken ones reported by name.

Shape legend: B images of a chunk, H and W pixels of the crop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeclip.config import PreprocessConfig
from edgeclip.data.augment import Augmentation, augment
from edgeclip.data.records import Record
from edgeclip.errors import ImageError
from edgeclip.image import crop_uint8

T = TypeVar("T")
CHUNK = 32


class View(NamedTuple):
    """One look at an image: the number of its record, and how it is cropped; None for the plain crop."""

    record: int
    augmentation: Augmentation | None = None


@dataclass(frozen=True)
class Decoded:
    """The images of one chunk that could be decoded: `pixels` (B, H, W, 3) uint8 and their record indices; the rest as
    {index: reason}.
    """

    indices: tuple[int, ...]
    pixels: NDArray[np.uint8]
    bad: dict[int, str]


def _decode(records: Sequence[Record], config: PreprocessConfig, views: Sequence[View]) -> Decoded:
    crops: dict[int, NDArray[np.uint8]] = {}
    bad: dict[int, str] = {}
    for index, augmentation in views:
        try:
            image = records[index].image.read()
            crops[index] = augment(image, augmentation, config) if augmentation else crop_uint8(image, config)
        except ImageError as error:
            bad[index] = error.got
        except OSError as error:
            bad[index] = f"{records[index].name} cannot be read ({error.strerror})"
    height, width = config.crop_size or config.resize_to or (0, 0)
    pixels = np.stack(list(crops.values())) if crops else np.empty((0, height, width, 3), np.uint8)
    return Decoded(tuple(crops), pixels, bad)


_work: Callable[[Sequence[View]], Decoded]
"""What this worker process does with a chunk; set once when it starts."""


def _start_worker(records: Sequence[Record], config: PreprocessConfig) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = lambda views: _decode(records, config, views)  # noqa: E731 - a worker's only state


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this is a worker
    parent.join()
    os._exit(1)


def _do_work(views: Sequence[View]) -> Decoded:
    return _work(views)


def decode(
    records: Sequence[Record], chunks: Iterable[Sequence[int]], config: PreprocessConfig, *, workers: int
) -> Iterator[Decoded]:
    """Decode chunks of record indices, in order; see `decode_views`."""
    return decode_views(records, ([View(i) for i in chunk] for chunk in chunks), config, workers=workers)


def decode_views(
    records: Sequence[Record], chunks: Iterable[Sequence[View]], config: PreprocessConfig, *, workers: int
) -> Iterator[Decoded]:
    """Decode chunks of views, in order.

    Args:
        records: what the views' indices refer to; pickled once for each worker.
        chunks: lists of views of different images, consumed as the work advances.
        config: how images are resized and cropped.
        workers: processes; 0 decodes in this one.
    """
    if workers == 0:
        for chunk in chunks:
            yield _decode(records, config, chunk)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(records, config),
    )
    waiting: deque[Future[Decoded]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_do_work, chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
