"""What can be measured: whatever embeds images and texts, a bundle on a device as well as a checkpoint in PyTorch.

Shape legend: N images, M texts, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeclip.image import ImageSource
from edgeclip.progress import Advance, ignore

T = TypeVar("T")
GROUP = 32
"""Items of one call, so that progress can be told between calls."""


class Encoder(Protocol):
    """Images and texts to unit vectors of one space."""

    @property
    def embedding_size(self) -> int:
        """E, the length of an embedding."""
        ...

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes logits of them."""
        ...

    def encode_image(self, images: Sequence[ImageSource]) -> NDArray[Any]:
        """N images to L2-normalised `image_embeds` (N, E) float32."""
        ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[Any]:
        """M texts to L2-normalised `text_embeds` (M, E) float32."""
        ...


def embed_images(encoder: Encoder, images: Sequence[ImageSource], advance: Advance = ignore) -> NDArray[np.float32]:
    """(N, E) of any number of images, with `advance` told how many are done."""
    return _in_groups(encoder.encode_image, images, encoder.embedding_size, advance)


def embed_texts(encoder: Encoder, texts: Sequence[str], advance: Advance = ignore) -> NDArray[np.float32]:
    """(M, E) of any number of texts, with `advance` told how many are done."""
    return _in_groups(encoder.encode_text, texts, encoder.embedding_size, advance)


def _in_groups(
    encode: Callable[[Sequence[T]], NDArray[np.float32]], items: Sequence[T], embedding_size: int, advance: Advance
) -> NDArray[np.float32]:
    parts = [np.empty((0, embedding_size), np.float32)]
    for start in range(0, len(items), GROUP):
        group = items[start : start + GROUP]
        parts.append(encode(group))
        advance(len(group))
    return np.concatenate(parts)
