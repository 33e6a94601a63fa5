"""What a teacher that ran once has left on disk: its embeddings of replayable augmentations and of all captions.

A cache is a folder of safetensors shards of 1024 images, and an index with the hash of each. It takes (A + C) * E * 2
bytes for an image with A augmentations and C captions, since embeddings are float16: each component is off by at most
1/2048 of itself, and so is a cosine.

Shape legend: N images of a shard, A augmentations, P numbers that describe one, C captions of a shard, B pairs of a
batch, E embedding size.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from edgeclip.config import Config, PreprocessConfig
from edgeclip.data.augment import Augmentation, AugmentConfig
from edgeclip.errors import MALFORMED, DataError
from edgeclip.files import read_whole

INDEX = "index.json"
SCHEMA = 1
SHARD = 1024
"""Images of a shard."""


class Identity(Config, frozen=True, kw_only=True):
    """All that a cache depends on: settings, and hashes of weights, names and captions, and of some pixels and tokens.

    `pixels` tells when the same files are decoded to something else: replaced images, or another version of a decoder.
    """

    teacher: str
    data: str
    pixels: str
    tokens: str
    preprocess: PreprocessConfig
    augment: AugmentConfig
    augmentations: int
    seed: int


class CacheIndex(Config, frozen=True, kw_only=True):
    """The content of index.json. `shards` are the hashes of those that are finished, in order."""

    schema: int
    identity: Identity
    images: int
    projection_dim: int
    logit_scale: float
    shards: list[str]


class Targets(NamedTuple):
    """The teacher's `image_embeds` and `text_embeds` of a batch, each (B, E) float32, L2-normalised."""

    image_embeds: Tensor
    text_embeds: Tensor


class CachedTeacher:
    """What `build_cache` left: the teacher's targets, without the teacher.

    `unreadable` are the records whose image could not be read when it was built.
    """

    def __init__(self, folder: Path) -> None:
        """Open a cache and check all of it against its hashes; the shards stay on disk, mapped into memory.

        Raises:
            DataError: there is none, it is unfinished, or it is damaged.
        """
        index = read_index(folder)
        if len(index.shards) != -(-index.images // SHARD):
            raise DataError(
                f"{folder}, a cache cut short after {SHARD * len(index.shards)} of {index.images} images",
                expected="a finished one",
                fix="build it again, which goes on from there",
            )
        self.identity: dict[str, Any] = msgspec.to_builtins(index.identity)
        self.augmentations = index.identity.augmentations
        self.logit_scale = index.logit_scale
        self._folder = folder
        self._shards = [open_shard(folder, number, sha256) for number, sha256 in enumerate(index.shards)]
        missing = [~shard["image_embeds"].isfinite().all(dim=2).all(dim=1) for shard in self._shards]
        self.unreadable: tuple[int, ...] = tuple(torch.cat(missing).nonzero().flatten().tolist())

    def augmentation(self, index: int, number: int) -> Augmentation:
        """The augmentation of that number of the record of that index."""
        shard, row = divmod(index, SHARD)
        return Augmentation(*self._shards[shard]["augmentations"][row, number].tolist())

    def targets(
        self, indices_B: NDArray[np.int64], augmentations_B: NDArray[np.int64], captions_B: NDArray[np.int64]
    ) -> Targets:
        """What the teacher makes of pairs.

        Args:
            indices_B: records.
            augmentations_B: which augmentation of each image.
            captions_B: which caption of each record.

        Raises:
            DataError: an image that could not be read when the cache was built.
        """
        images, texts = [], []
        for index, augmentation, caption in zip(indices_B, augmentations_B, captions_B, strict=True):
            shard, row = self._shards[index // SHARD], index % SHARD
            images.append(shard["image_embeds"][row, augmentation])
            texts.append(shard["text_embeds"][shard["first_caption"][row] + caption])
        image_embeds_BE = torch.stack(images).float()
        if not bool(image_embeds_BE.isfinite().all()):
            missing = indices_B[~image_embeds_BE.isfinite().all(dim=1).numpy()]
            raise DataError(
                f"{self._folder}, a cache without the images {missing.tolist()}, which could not be read then",
                expected="the images as they were",
                fix="remove it, to build it again",
            )
        return Targets(image_embeds_BE, torch.stack(texts).float())


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"shard-{number:05}.safetensors"


def read_index(folder: Path) -> CacheIndex:
    """Read the index of a cache, finished or not.

    Raises:
        DataError: it is missing or malformed.
    """
    path = folder / INDEX
    try:
        index = msgspec.json.decode(read_whole(path), type=CacheIndex)
    except (OSError, *MALFORMED) as error:
        raise DataError(
            f"{path} cannot be read ({error})", expected="the index of a teacher's cache", fix="build the cache again"
        ) from error
    if index.schema != SCHEMA:
        raise DataError(f"{path} of schema {index.schema}", expected=f"{SCHEMA}", fix="build the cache again")
    return index


def open_shard(folder: Path, number: int, expected: str) -> dict[str, Tensor]:
    """Map a shard into memory. Its hash is that of what `build_cache` wrote, so that it needs no other check.

    Raises:
        DataError: it is missing or was changed.
    """
    path = shard_path(folder, number)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", expected="a shard of a cache", fix=f"remove {folder}"
        ) from error
    if found != expected:
        raise DataError(f"{path}, which was changed", expected="the bytes of its hash", fix=f"remove {folder}")
    return load_file(path)
