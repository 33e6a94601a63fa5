"""The bundle that is served, and the index beside it: decoding in threads, graphs and scans in one lane.

Shape legend: N items, E embedding size.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeclip.cpu import processors
from edgeclip.image import Crop, crop_and_size
from edgeclip.runtime.clip import load
from edgeclip.search.index import Index
from edgeclip.serve.inputs import Item
from edgeclip.serve.lane import Kind, Lane
from edgeclip.serve.metrics import Metrics
from edgeclip.serve.serve_settings import ServeSettings

logger = logging.getLogger(__name__)
T = TypeVar("T")
AHEAD = 2
"""Of one request's images: one is decoded while another is encoded."""
KNOWN_TEXTS, KNOWN_LETTERS = 4096, 200
"""Embeddings that are kept, some 8 MB at E = 512: labels, and what is asked again and again."""


class Model:
    """What all routes work with. Opened before the server listens, so that what is wrong is said at once."""

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        """Open the bundle and the index.

        Raises:
            EdgeclipError: either can't be used, or they don't belong together.
        """
        self.clip = load(
            settings.bundle,
            threads=settings.threads,
            precision=settings.precision,
            logit_scale=settings.logit_scale,
            logit_bias=settings.logit_bias,
        )
        self.index = Index(settings.db, self.clip) if settings.db else None
        self.bundle, self.metrics = self.clip.bundle, metrics
        self._settings = settings
        self._known_text = lru_cache(KNOWN_TEXTS)(self._encode_text)
        self._idle: asyncio.TimerHandle | None = None
        self._unloading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work, on the running loop."""
        self._lane = Lane(self._settings.queue)
        self._decoders = ThreadPoolExecutor(processors(), thread_name_prefix="edgeclip-decode")
        self.metrics.watch(lambda: self._lane.requests)

    async def stop(self) -> None:
        """Give everything back."""
        if self._idle:
            self._idle.cancel()
        await self._lane.close()
        self._decoders.shutdown()
        if self.index:
            self.index.close()
        self.clip.close()

    @property
    def has_room(self) -> bool:
        """Whether another request would be taken."""
        return self._lane.requests < self._settings.queue

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request's place in the queue.

        Raises:
            BusyError: there is none left.
        """
        with self._lane.place():
            if self._idle:
                self._idle.cancel()
            yield
        if self._settings.idle_unload and not self._lane.requests:
            self._idle = asyncio.get_running_loop().call_later(self._settings.idle_unload, self._begin_unloading)

    async def embed(self, items: Sequence[Item]) -> tuple[NDArray[np.float32], list[tuple[int, int] | None]]:
        """Texts and pictures to embeddings.

        Returns:
            (N, E), L2-normalised, and each picture's (width, height), upright.

        Raises:
            EdgeclipError: a picture can't be decoded, or the bundle no longer be used.
        """
        turns = asyncio.Semaphore(AHEAD)

        async def one(item: Item) -> tuple[NDArray[np.float32], tuple[int, int] | None]:
            async with turns:
                if isinstance(item, str):
                    return await self.run("text", partial(self._text, item)), None
                crop, size = await self.crop(item)
                return await self.run("image", partial(self._image, crop)), size

        rows = await gathered([one(item) for item in items])
        embeds_NE = np.stack([row for row, _ in rows]) if rows else np.empty((0, self.clip.embedding_size), np.float32)
        return embeds_NE, [size for _, size in rows]

    async def crop(self, picture: bytes) -> tuple[Crop, tuple[int, int]]:
        """Decode a picture as far as the graph needs it, and say its (width, height).

        Raises:
            ImageError: it can't be decoded.
        """
        return await self.aside(partial(self._crop, picture))

    async def run(self, kind: Kind, work: Callable[[], T]) -> T:
        """Do what uses the graphs or the index when its turn comes."""
        return await self._lane.run(kind, work)

    async def aside(self, work: Callable[[], T]) -> T:
        """Do what uses neither, in one of as many threads as there are processors."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    async def tokens(self, texts: Sequence[str]) -> int:
        """How many tokens texts have, each cut at the context length; counted aside, for they may be long and many."""
        return sum(map(len, await self.aside(partial(self.bundle.tokenizer.token_ids, texts)))) if texts else 0

    def _crop(self, picture: bytes) -> tuple[Crop, tuple[int, int]]:
        with self.metrics.decode_seconds.time():
            pixels, size = crop_and_size(picture, self.bundle.preprocess)
        return Crop(pixels), size

    def _text(self, text: str) -> NDArray[np.float32]:
        return self._known_text(text) if len(text) <= KNOWN_LETTERS else self._encode_text(text)

    def _encode_text(self, text: str) -> NDArray[np.float32]:
        with self.metrics.encode_seconds.labels("text").time():
            return self.clip.encode_text(text)[0]

    def _image(self, crop: Crop) -> NDArray[np.float32]:
        with self.metrics.encode_seconds.labels("image").time():
            return self.clip.encode_image(crop)[0]

    def _begin_unloading(self) -> None:
        self._unloading = asyncio.ensure_future(self.run("image", self._unload))

    def _unload(self) -> None:
        """Take a copy, which opens the same graphs when they are needed, in place of the one whose graphs are open."""
        if not self.clip.open_graphs:
            return
        used, self.clip = self.clip, copy.copy(self.clip)
        if self.index:
            self.index.clip = self.clip
        used.close()
        logger.info("idle: the graphs' memory was given back")


async def gathered(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; where one fails the others are not begun any more."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
