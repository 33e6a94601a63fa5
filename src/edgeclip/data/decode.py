"""Decode images in worker processes, in order, with broken ones reported by name.

Shape legend: B images of a chunk, H and W pixels of the crop.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeclip.config import PreprocessConfig
from edgeclip.data.records import Record
from edgeclip.errors import ImageError
from edgeclip.image import crop_uint8

CHUNK = 32


@dataclass(frozen=True)
class Decoded:
    """The images of one chunk that could be decoded: `pixels` (B, H, W, 3) uint8 and their record indices; the rest as
    {index: reason}.
    """

    indices: tuple[int, ...]
    pixels: NDArray[np.uint8]
    bad: dict[int, str]


def _decode(records: Sequence[Record], config: PreprocessConfig, indices: Sequence[int]) -> Decoded:
    crops: dict[int, NDArray[np.uint8]] = {}
    bad: dict[int, str] = {}
    for index in indices:
        try:
            crops[index] = crop_uint8(records[index].image.read(), config)
        except ImageError as error:
            bad[index] = error.got
        except OSError as error:
            bad[index] = f"{records[index].name} cannot be read ({error.strerror})"
    height, width = config.crop_size or (0, 0)
    pixels = np.stack(list(crops.values())) if crops else np.empty((0, height, width, 3), np.uint8)
    return Decoded(tuple(crops), pixels, bad)


_work: Callable[[Sequence[int]], Decoded]
"""What this worker process does with a chunk; set once when it starts."""


def _start_worker(records: Sequence[Record], config: PreprocessConfig) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _work = lambda indices: _decode(records, config, indices)  # noqa: E731 - a worker's only state


def _do_work(indices: Sequence[int]) -> Decoded:
    return _work(indices)


def decode(
    records: Sequence[Record], chunks: Iterable[Sequence[int]], config: PreprocessConfig, *, workers: int
) -> Iterator[Decoded]:
    """Decode chunks of record indices, in order.

    Args:
        records: what the indices refer to; pickled once for each worker.
        chunks: lists of indices, consumed as the work advances.
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


def in_chunks(indices: Sequence[int], size: int = CHUNK) -> Iterator[Sequence[int]]:
    """Consecutive slices of at most `size`."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
