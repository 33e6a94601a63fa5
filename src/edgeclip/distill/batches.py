"""Which pairs make up which training step, and the tensors for them.

Everything is a function of (seed, step), so that training can stop anywhere and go on with the same batches.

Shape legend: B pairs of a batch, T tokens, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeclip.config import PreprocessConfig
from edgeclip.data.decode import CHUNK, decode, in_chunks
from edgeclip.data.records import Record
from edgeclip.errors import DataError
from edgeclip.image import normalize
from edgeclip.tokenizer import ClipTokenizer


@dataclass(frozen=True)
class Batch:
    """`pixel_values` (B, 3, H, W) float32, `input_ids` (B, T) int64, and the record index of each pair, (B,)."""

    pixel_values: Tensor
    input_ids: Tensor
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class Sampler:
    """Shuffled batches of `batch_size` among `total` records; the incomplete last batch of an epoch is left out."""

    total: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not 2 <= self.batch_size <= self.total:
            raise DataError(
                f"batch size {self.batch_size} for {self.total} training pairs",
                expected="at least 2 and at most the number of pairs",
                fix="lower --batch-size or raise --samples",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.total // self.batch_size

    def indices(self, step: int) -> NDArray[np.int64]:
        """Record indices of a step, (B,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.total, self.seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


@lru_cache(maxsize=2)
def _order(total: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(total)


def choose_captions(records: Sequence[Record], indices: NDArray[np.int64], seed: int, step: int) -> list[str]:
    """One caption for each record, drawn anew at each step."""
    draw = np.random.default_rng((seed, step, 1))
    return [captions[draw.integers(len(captions))] for captions in (records[int(i)].captions for i in indices)]


def stream_batches(
    records: Sequence[Record],
    sampler: Sampler,
    preprocess: PreprocessConfig,
    tokenizer: ClipTokenizer,
    *,
    workers: int,
    steps: range,
    on_bad_image: Callable[[str], None],
) -> Iterator[Batch]:
    """Decode batches as training goes, for sets too large for memory. Broken images are reported and left out."""

    def chunks() -> Iterator[Sequence[int]]:
        for step in steps:
            yield from in_chunks(sampler.indices(step).tolist())

    decoded = decode(records, chunks(), preprocess, workers=workers)
    chunks_per_batch = -(-sampler.batch_size // CHUNK)
    for step in steps:
        parts = [next(decoded) for _ in range(chunks_per_batch)]
        for reason in (reason for part in parts for reason in part.bad.values()):
            on_bad_image(reason)
        if not any(part.indices for part in parts):
            raise DataError(
                f"step {step + 1}, none of whose images can be read", expected="images", fix="see the reasons above"
            )
        indices = np.concatenate([np.asarray(part.indices, np.int64) for part in parts])
        pixels = np.concatenate([part.pixels for part in parts])
        captions = choose_captions(records, indices, sampler.seed, step)
        yield Batch(
            pixel_values=torch.from_numpy(normalize(pixels, preprocess)),
            input_ids=torch.from_numpy(tokenizer(captions, pad_to_longest=True)),
            indices=indices,
        )
