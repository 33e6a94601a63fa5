"""Run a teacher once, over every augmentation of every image and every caption.

After MobileCLIP's reinforced data sets (Vasu et al. 2024, section 3.1): what is kept of an augmentation is a few
numbers and the teacher's embedding of the result, and a student is shown exactly these pixels again.

Shape legend: N images of a shard, A augmentations, P numbers that describe one, C captions of a shard, E embedding
size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from edgeclip.checkpoint import Checkpoint
from edgeclip.data.augment import Augmentation, draw
from edgeclip.data.decode_views import Decoded, View, decode_views, in_chunks
from edgeclip.data.records import Record, fingerprint
from edgeclip.distill.cache import (
    INDEX,
    SCHEMA,
    SHARD,
    CachedTeacher,
    CacheIndex,
    Identity,
    open_shard,
    read_index,
    shard_path,
)
from edgeclip.distill.recipe import CacheConfig
from edgeclip.distill.state import digest
from edgeclip.errors import CheckpointError, DataError
from edgeclip.files import output_folder, write_atomically
from edgeclip.model import Clip
from edgeclip.model.encode import encode_images, encode_texts

MAX_LENGTH_ERROR = 1e-3
"""Of an embedding that was normalised: far more than float32 leaves, far less than 1."""
PROBES = 8
"""Images whose pixels are compared when a cache is taken up again."""


def build_cache(
    teacher: Checkpoint,
    records: Sequence[Record],
    folder: Path,
    config: CacheConfig,
    *,
    seed: int,
    workers: int = 0,
    on_skip: Callable[[str], None] = lambda reason: None,
    advance: Callable[[int], None] = lambda n: None,
) -> CachedTeacher:
    """Let the teacher see every augmentation of every image and every caption; what is there already is kept.

    Args:
        teacher: its model, tokenizer and preprocessing.
        records: the training set.
        folder: of the cache. A build that was interrupted goes on after its last finished shard.
        config: how many augmentations there are of each image, and how far they go.
        seed: of the augmentations.
        workers: processes that decode.
        on_skip: told of each image that cannot be read, or could not when its shard was built, and has no
            embeddings then.
        advance: told how many images are done.

    Raises:
        ConfigError: the folder cannot be made.
        DataError: it has a cache of something else, or one that is damaged.
        CheckpointError: the teacher's embeddings are no unit vectors.
    """
    identity = _identity(teacher, records, config, seed)
    index = _open_index(output_folder(folder), teacher.model, records, identity)
    done = min(SHARD * len(index.shards), len(records))
    if done:
        advance(done)
    shards = [range(start, min(start + SHARD, len(records))) for start in range(done, len(records), SHARD)]
    decoded = _decode_all(records, shards, identity, workers)
    for number, shard in enumerate(shards, len(index.shards)):
        tensors: dict[str, NDArray[Any]] = {
            "augmentations": draw(config.augment, seed, shard, config.augmentations),
            "image_embeds": _embed_images(teacher, shard, config.augmentations, decoded, on_skip),
            **_embed_captions(teacher, [records[i].captions for i in shard]),
        }
        content = safetensors.numpy.save(tensors)
        write_atomically(shard_path(folder, number), content)
        index = msgspec.structs.replace(index, shards=[*index.shards, hashlib.sha256(content).hexdigest()])
        write_atomically(folder / INDEX, msgspec.json.encode(index))
        advance(len(shard))
    cache = CachedTeacher(folder)
    for number in cache.unreadable:
        if number < done:
            on_skip(f"{records[number].name}, not readable when {folder} was made; remove that to try again")
    return cache


def _identity(teacher: Checkpoint, records: Sequence[Record], config: CacheConfig, seed: int) -> Identity:
    probes = np.unique(np.linspace(0, len(records) - 1, PROBES).astype(int)).tolist()
    drawn = draw(config.augment, seed, probes, config.augmentations)
    views = [View(index, Augmentation(*rows[-1].tolist())) for index, rows in zip(probes, drawn, strict=True)]
    seen = next(decode_views(records, iter([views]), teacher.preprocess_config, workers=0))
    return Identity(
        teacher=digest(*(tensor.numpy() for tensor in teacher.model.state_dict().values()))
        + hashlib.sha256(msgspec.json.encode(teacher.config)).hexdigest(),
        data=fingerprint(records),
        pixels=digest(seen.pixels, np.asarray(seen.indices)),
        tokens=digest(teacher.tokenizer([text for index in probes for text in records[index].captions])),
        preprocess=teacher.preprocess_config,
        augment=config.augment,
        augmentations=config.augmentations,
        seed=seed,
    )


def _open_index(folder: Path, teacher: Clip, records: Sequence[Record], identity: Identity) -> CacheIndex:
    """The index of the folder's cache, which is taken up; of a new one where there is none."""
    new = CacheIndex(
        schema=SCHEMA,
        identity=identity,
        images=len(records),
        projection_dim=teacher.config.projection_dim,
        logit_scale=teacher.logit_scale.item(),
        shards=[],
    )
    return _taken_up(folder, new) if (folder / INDEX).is_file() else new


def _taken_up(folder: Path, wanted: CacheIndex) -> CacheIndex:
    """The index of a cache whose finished shards are all there, and of the same teacher, data and settings."""
    index = read_index(folder)
    _check_identity(folder, index.identity, wanted.identity)
    same_scale = math.isclose(index.logit_scale, wanted.logit_scale, rel_tol=1e-6)  # it is an exponential of float32
    if (index.images, index.projection_dim, same_scale) != (wanted.images, wanted.projection_dim, True):
        raise DataError(f"{folder / INDEX}, which was changed", expected="what was written", fix=f"remove {folder}")
    for number, sha256 in enumerate(index.shards):
        open_shard(folder, number, sha256)
    return index


def _check_identity(folder: Path, found: Identity, wanted: Identity) -> None:
    changed = [field for field in found.__struct_fields__ if getattr(found, field) != getattr(wanted, field)]
    causes = [field for field in changed if field not in ("pixels", "tokens")] or changed  # which others entail
    if changed:
        raise DataError(
            f"{folder}, a cache with another {' and another '.join(causes)}",
            expected="the same teacher, data and settings",
            fix="give another folder, or remove this one",
        )


def _decode_all(
    records: Sequence[Record], shards: Sequence[range], identity: Identity, workers: int
) -> Iterator[Decoded]:
    """Every augmentation of every image: by shard, then by augmentation, then in order."""

    def chunks() -> Iterator[Sequence[View]]:
        for shard in shards:
            drawn_NAP = draw(identity.augment, identity.seed, shard, identity.augmentations)
            for number in range(identity.augmentations):
                rows = drawn_NAP[:, number].tolist()
                yield from in_chunks([View(i, Augmentation(*row)) for i, row in zip(shard, rows, strict=True)])

    return decode_views(records, chunks(), identity.preprocess, workers=workers)


def _embed_images(
    teacher: Checkpoint,
    shard: range,
    augmentations: int,
    decoded: Iterator[Decoded],
    on_skip: Callable[[str], None],
) -> NDArray[np.float16]:
    """(N, A, E) float16, NaN where an image cannot be read."""
    embeds_NAE = np.full((len(shard), augmentations, teacher.embedding_size), np.nan, np.float16)
    for number in range(augmentations):
        for _ in in_chunks(shard):
            part = next(decoded)
            if part.indices:
                embeds = _checked(encode_images(teacher.model, part.pixels, teacher.preprocess_config), "images")
                embeds_NAE[np.asarray(part.indices) - shard.start, number] = embeds
            if number == 0:
                for reason in part.bad.values():
                    on_skip(reason)
    return embeds_NAE


def _embed_captions(teacher: Checkpoint, captions: Sequence[Sequence[str]]) -> dict[str, NDArray[Any]]:
    """The embeddings of each record's captions in turn, (C, E) float16, and where each record's begin, (N + 1,)."""
    texts = [text for texts in captions for text in texts]
    texts_CE = _checked(encode_texts(teacher.model, texts, teacher.tokenizer), "texts")
    first_caption = np.cumsum([0, *map(len, captions)], dtype=np.int64)
    return {"text_embeds": texts_CE.astype(np.float16), "first_caption": first_caption}


def _checked(embeds_NE: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    """The embeddings, if they have a direction: finite weights may yet give numbers that are not, or nothing but 0."""
    lengths_N = np.linalg.norm(embeds_NE, axis=1)
    worst = lengths_N[np.argmax(np.abs(lengths_N - 1))]  # one that is not a number, if there is any
    if not abs(worst - 1) < MAX_LENGTH_ERROR:
        raise CheckpointError(
            f"a teacher whose embeddings of {what} have lengths such as {worst:g}",
            expected="vectors of length 1",
            fix="download the checkpoint again",
        )
    return embeds_NE
