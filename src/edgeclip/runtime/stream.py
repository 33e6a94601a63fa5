"""Many images through a pool of threads, in order, with a bounded number of them in memory.

In each of these iterators `FLUSH` says that the next item may be long in coming: what was begun is delivered first.

Shape legend: B images of a batch, H and W pixels of the crop, E embedding size.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError
from edgeclip.image import ImageSource, crop_uint8, normalize

T = TypeVar("T")
R = TypeVar("R")


class Flush(Enum):
    """The type of `FLUSH`."""

    FLUSH = "flush"


FLUSH = Flush.FLUSH
"""Among items: deliver what was begun before the next one is asked for."""
Cropped: TypeAlias = tuple[ImageSource, NDArray[np.uint8] | ImageError]
"""A source with its pixels (H, W, 3), or with what is wrong with it."""
Embedded: TypeAlias = tuple[ImageSource, NDArray[np.float32] | ImageError]
"""A source with its embedding (E,), or with what is wrong with it."""
Encode: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""`pixel_values` (B, 3, H, W) to `image_embeds` (B, E), from any thread."""


def embedded(
    sources: Iterable[ImageSource | Flush], config: PreprocessConfig, encode: Encode, *, batch_size: int, workers: int
) -> Iterator[Embedded]:
    """Decode and encode images, both in the same threads; Pillow, numpy and ONNX Runtime let others run meanwhile.

    About `workers` decodings and as many batches are begun ahead of the one that is delivered. A batch is filled with
    intact images, so that it doesn't depend on the speed of the threads.

    Args:
        sources: read as the work advances.
        config: preprocessing.
        encode: the image tower.
        batch_size: images of a batch.
        workers: threads; 0 does everything in the caller's.
    """

    def crop(source: ImageSource) -> Cropped:
        try:
            return source, crop_uint8(source, config)
        except ImageError as error:
            return source, error

    def encode_batch(batch: list[Cropped]) -> list[Embedded]:
        pixels = [pixels for _, pixels in batch if not isinstance(pixels, ImageError)]
        embeds = iter(encode(normalize(np.stack(pixels), config)) if pixels else ())
        return [(source, pixels if isinstance(pixels, ImageError) else next(embeds)) for source, pixels in batch]

    with threads(workers) as pool:
        crops = in_order(crop, sources, pool, ahead=batch_size + workers)  # type: ignore[arg-type]  # T is ImageSource
        for batch in in_order(encode_batch, in_batches(crops, batch_size), pool, ahead=workers):
            if not isinstance(batch, Flush):
                yield from batch


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor | None]:
    """A pool of threads, None for 0; what it has not begun when the block ends is dropped."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="edgeclip") if workers else None
    try:
        yield pool
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def in_order(
    function: Callable[[T], R], items: Iterable[T | Flush], pool: ThreadPoolExecutor | None, *, ahead: int
) -> Iterator[R | Flush]:
    """Apply a function in the pool's threads, at most `ahead` items beyond the one whose result is delivered."""
    begun: deque[Future[R]] = deque()
    for item in items:
        if isinstance(item, Flush):
            yield from _results(begun, 0)
            yield item
        elif pool is None:
            yield function(item)
        else:
            begun.append(pool.submit(function, item))
            yield from _results(begun, ahead)
    yield from _results(begun, 0)


def _results(begun: deque[Future[R]], left: int) -> Iterator[R]:
    while len(begun) > left:
        yield begun.popleft().result()


def in_batches(images: Iterable[Cropped | Flush], size: int) -> Iterator[list[Cropped] | Flush]:
    """Lists with `size` intact images each, the last perhaps with fewer; broken ones stay in their place."""
    batch: list[Cropped] = []
    intact = 0
    for image in images:
        if isinstance(image, Flush):
            yield image
            continue
        batch.append(image)
        intact += not isinstance(image[1], ImageError)
        if intact in (0, size):
            yield batch
            batch, intact = [], 0
    if batch:
        yield batch


def in_groups(items: Iterable[T | Flush], size: int) -> Iterator[list[T] | Flush]:
    """Lists of `size` items, the last perhaps with fewer."""
    group: list[T] = []
    for item in items:
        if isinstance(item, Flush):
            yield item
            continue
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def latest(items: Iterable[T]) -> Iterator[T]:
    """The newest item whenever one is asked for; those that came meanwhile are dropped, as a camera's frames should be.

    The items are read in a thread of their own, from the first one asked for until they end or the iterator is closed.
    What reading them raises is raised here, once nothing read before is left.
    """
    box: list[T] = []
    changed = threading.Condition()
    state = {"ended": False, "closed": False}
    failure: list[BaseException] = []

    def read() -> None:
        try:
            for item in items:
                with changed:
                    box[:] = [item]
                    changed.notify()
                    if state["closed"]:
                        return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are asked for
            failure.append(error)
        finally:
            with changed:
                state["ended"] = True
                changed.notify()

    threading.Thread(target=read, name="edgeclip-latest", daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: box or state["ended"])
                if not box:
                    break
                item = box.pop()
            yield item
    finally:
        state["closed"] = True
    if failure:
        raise failure[0]
