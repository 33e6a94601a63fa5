"""Which pairs make up which training step, and the tensors for them.

Everything is a function of (seed, step), so that training can stop anywhere and go on with the same batches.

Shape legend: B pairs of a batch, T tokens, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeclip.config import PreprocessConfig
from edgeclip.data.decode_views import CHUNK, Decoded, View, decode_views, in_chunks
from edgeclip.data.records import Record
from edgeclip.distill.cache import CachedTeacher, Targets
from edgeclip.errors import DataError
from edgeclip.image import normalize
from edgeclip.tokenizer import ClipTokenizer


@dataclass(frozen=True)
class Batch:
    """`pixel_values` (B, 3, H, W) float32, `input_ids` (B, T) int64, and the record index of each pair, (B,).

    `targets` are what a teacher makes of exactly these pixels and captions, where there is one.
    """

    pixel_values: Tensor
    input_ids: Tensor
    indices: NDArray[np.int64]
    targets: Targets | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on a device."""
        targets = self.targets and Targets(*(embeds.to(device) for embeds in self.targets))
        return replace(
            self, pixel_values=self.pixel_values.to(device), input_ids=self.input_ids.to(device), targets=targets
        )


def check_batch_size(batch_size: int, pairs: int) -> None:
    """Refuse batches that there are too few pairs for.

    Raises:
        DataError: naming both numbers.
    """
    if not 2 <= batch_size <= pairs:
        raise DataError(
            f"batch size {batch_size} for {pairs} training pairs",
            expected="at least 2 and at most the number of pairs",
            fix=f"lower the batch size to {max(pairs, 2)}, or use more pairs",
        )


@dataclass(frozen=True)
class Sampler:
    """Shuffled batches of `batch_size` among `total` records but those `left_out`, which cannot be read.

    The incomplete last batch of an epoch is left out too.
    """

    total: int
    batch_size: int
    seed: int
    left_out: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size, self._count)

    @property
    def _count(self) -> int:
        return self.total - len(self.left_out)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self._count // self.batch_size

    def indices(self, step: int) -> NDArray[np.int64]:
        """Record indices of a step, (B,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.total, self.left_out, self.seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


@lru_cache(maxsize=2)
def _order(total: int, left_out: tuple[int, ...], seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(np.delete(np.arange(total), left_out))


def choose_captions(
    records: Sequence[Record], indices_B: NDArray[np.int64], seed: int, step: int
) -> tuple[NDArray[np.int64], list[str]]:
    """One caption for each record, drawn anew at each step: its number among the record's, (B,), and its text."""
    captions = [records[int(index)].captions for index in indices_B]
    numbers = _draw(indices_B, seed, step, 1, [len(texts) for texts in captions])
    return numbers, [texts[number] for texts, number in zip(captions, numbers, strict=True)]


def choose_augmentations(indices_B: NDArray[np.int64], seed: int, step: int, count: int) -> NDArray[np.int64]:
    """The number of an augmentation below `count` for each record, (B,), drawn anew at each step."""
    return _draw(indices_B, seed, step, 2, [count] * len(indices_B))


def _draw(indices_B: NDArray[np.int64], seed: int, step: int, kind: int, counts: Sequence[int]) -> NDArray[np.int64]:
    """A draw depends on the record, and not on what else this process reads or could not read of the batch."""
    drawn = [
        np.random.default_rng((seed, step, kind, index)).integers(count)
        for index, count in zip(indices_B, counts, strict=True)
    ]
    return np.asarray(drawn, np.int64)


@dataclass(frozen=True)
class BatchStream:
    """Batches that are decoded as training goes, for sets too large for memory. Broken images are left out.

    Attributes:
        records: what the sampler's indices refer to.
        sampler: which records make up each step.
        preprocess: how images are cropped and normalised.
        tokenizer: of the model that is trained.
        workers: processes that decode.
        on_skip: told why an image is left out.
        share: the number of this process and how many train; each gets consecutive pairs of every batch.
        cache: a teacher's view of augmented images; these are then decoded, and batches have its targets.

    Raises:
        DataError: there are more processes than pairs.
    """

    records: Sequence[Record]
    sampler: Sampler
    preprocess: PreprocessConfig
    tokenizer: ClipTokenizer
    workers: int
    on_skip: Callable[[str], None]
    share: tuple[int, int] = (0, 1)
    cache: CachedTeacher | None = None

    def __post_init__(self) -> None:
        _, processes = self.share
        if processes > self.sampler.batch_size:
            raise DataError(
                f"batch size {self.sampler.batch_size} for {processes} processes",
                expected="at least one pair for each",
                fix="raise the batch size",
            )

    def __call__(self, steps: range) -> Iterator[Batch]:
        """The batch of each step, or this process's share of it.

        Raises:
            DataError: none of a batch's images can be read.
        """
        chunks = (chunk for step in steps for chunk in in_chunks(self._views(step)))
        decoded = decode_views(self.records, chunks, self.preprocess, workers=self.workers)
        for step in steps:
            parts = [next(decoded) for _ in range(-(-len(self._indices(step)) // CHUNK))]
            for reason in (reason for part in parts for reason in part.bad.values()):
                self.on_skip(reason)
            if not any(part.indices for part in parts):
                raise DataError(
                    f"step {step + 1}, none of whose images can be read", expected="images", fix="see the reasons above"
                )
            yield self._batch(step, parts)

    def _indices(self, step: int) -> NDArray[np.int64]:
        process, processes = self.share
        return np.array_split(self.sampler.indices(step), processes)[process]

    def _augmentations(self, step: int, indices_B: NDArray[np.int64], cache: CachedTeacher) -> NDArray[np.int64]:
        return choose_augmentations(indices_B, self.sampler.seed, step, cache.augmentations)

    def _views(self, step: int) -> list[View]:
        indices_B, cache = self._indices(step), self.cache
        if cache is None:
            return [View(index) for index in indices_B.tolist()]
        drawn = zip(indices_B.tolist(), self._augmentations(step, indices_B, cache).tolist(), strict=True)
        return [View(index, cache.augmentation(index, number)) for index, number in drawn]

    def _batch(self, step: int, parts: Sequence[Decoded]) -> Batch:
        indices_B = np.concatenate([np.asarray(part.indices, np.int64) for part in parts])
        pixels = np.concatenate([part.pixels for part in parts])
        numbers, captions = choose_captions(self.records, indices_B, self.sampler.seed, step)
        targets = None
        if self.cache is not None:
            targets = self.cache.targets(indices_B, self._augmentations(step, indices_B, self.cache), numbers)
        return Batch(
            pixel_values=torch.from_numpy(normalize(pixels, self.preprocess)),
            input_ids=torch.from_numpy(self.tokenizer(captions, pad_to_longest=True)),
            indices=indices_B,
            targets=targets,
        )
