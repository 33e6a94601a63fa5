"""The release card: what a bundle keeps of its teacher, measured on pairs that nothing of it was made from.

Shape legend: N pairs, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from edgeclip.evaluate.encoder import Encoder, embed_images, embed_texts
from edgeclip.evaluate.judge import Embeds, Judge, own_pairs
from edgeclip.evaluate.retrieval import mean_found
from edgeclip.image import ImageSource
from edgeclip.manifest import Card, Closeness
from edgeclip.progress import task


def release_card(
    teacher: Encoder, bundle: Encoder, images: Sequence[ImageSource], texts: Sequence[str], *, data: str, seed: int
) -> Card:
    """Encode N pairs with both and compare.

    Args:
        teacher: what the bundle was made from.
        bundle: the bundle.
        images: N images.
        texts: a caption of each.
        data: what the pairs are called.
        seed: which of them were taken.
    """
    embeds = [embed_pairs(encoder, images, texts, name) for name, encoder in (("teacher", teacher), ("bundle", bundle))]
    return card_of(*embeds, data=data, seed=seed)


def embed_pairs(encoder: Encoder, images: Sequence[ImageSource], texts: Sequence[str], name: str) -> Embeds:
    """Encode N pairs; `name` is what progress calls the encoder."""
    with task(f"measuring the {name}", 2 * len(texts)) as advance:
        return embed_images(encoder, images, advance), embed_texts(encoder, texts, advance)


def card_of(teacher: Embeds, bundle: Embeds, *, data: str, seed: int, judge: Judge = own_pairs) -> Card:
    """The card of what both made of the same N pairs.

    Args:
        teacher: by what the bundle was made from.
        bundle: by the bundle.
        data: as for `release_card`, and so is `seed`.
        seed: see there.
        judge: what is taken for right.
    """
    (images_NE, texts_NE), (own_images_NE, own_texts_NE) = teacher, bundle
    (teacher_i2t, teacher_t2i), (i2t, t2i) = (
        [mean_found(found_KN, np.arange(len(images_NE))) for found_KN in judge(embeds).transpose(1, 0, 2)]
        for embeds in (teacher, bundle)
    )
    return Card(
        data=data,
        seed=seed,
        pairs=len(texts_NE),
        teacher_i2t=teacher_i2t,
        teacher_t2i=teacher_t2i,
        i2t=i2t,
        t2i=t2i,
        image_cosine=closeness(images_NE, own_images_NE),
        text_cosine=closeness(texts_NE, own_texts_NE),
        truth=UNSET if judge is own_pairs else "teacher",
    )


def closeness(embeds_NE: NDArray[np.float32], others_NE: NDArray[np.float32]) -> Closeness:
    """Cosines of corresponding rows, mean and smallest."""
    cosine_N = (embeds_NE.astype(np.float64) * others_NE).sum(axis=1)
    return Closeness(mean=round(float(cosine_N.mean()), 7), smallest=round(float(cosine_N.min()), 7))
