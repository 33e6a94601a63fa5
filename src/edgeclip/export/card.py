"""The release card: what a bundle keeps of its teacher, measured on pairs that it was not calibrated on.

Shape legend: N pairs, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclip.bundle import Card, Closeness
from edgeclip.checkpoint import Loaded
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.export.samples import Samples
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.progress import Advance, stage
from edgeclip.runtime.clip import ClipRuntime


def measure(loaded: Loaded, clip: ClipRuntime, samples: Samples) -> Card:
    """Encode the same pairs with the teacher and with the bundle, one at a time as on a device, and compare."""
    pixels, texts = samples.measured.pixels, samples.measured.first_captions
    with stage("measuring the teacher", 2 * len(texts)) as advance:
        images_NE = encode_images(loaded.model, pixels, loaded.preprocess_config, batch_size=1, advance=advance)
        texts_NE = encode_texts(loaded.model, texts, loaded.tokenizer, batch_size=1, advance=advance)
    with stage("measuring the bundle", 2 * len(texts)) as advance:
        own_images_NE = one_by_one(clip.encode_image, pixels, advance)
        own_texts_NE = one_by_one(clip.encode_text, texts, advance)
    pair_N = np.arange(len(texts))
    teacher_i2t, teacher_t2i = retrieval(images_NE, texts_NE, pair_N)
    i2t, t2i = retrieval(own_images_NE, own_texts_NE, pair_N)
    return Card(
        data=samples.name,
        seed=samples.seed,
        pairs=len(texts),
        teacher_i2t=teacher_i2t,
        teacher_t2i=teacher_t2i,
        i2t=i2t,
        t2i=t2i,
        image_cosine=_closeness(images_NE, own_images_NE),
        text_cosine=_closeness(texts_NE, own_texts_NE),
    )


def one_by_one(
    encode: Callable[[Sequence[Any]], NDArray[np.float32]], items: Iterable[Any], advance: Advance
) -> NDArray[np.float32]:
    """Encode N items a call each, (N, E): a batch of several would share the ranges of int8."""
    parts = []
    for item in items:
        parts.append(encode([item]))
        advance(1)
    return np.concatenate(parts)


def _closeness(embeds_NE: NDArray[np.float32], others_NE: NDArray[np.float32]) -> Closeness:
    cosine_N = (embeds_NE * others_NE).sum(axis=1)
    return Closeness(mean=round(float(cosine_N.mean()), 5), smallest=round(float(cosine_N.min()), 5))
