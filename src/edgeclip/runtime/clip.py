"""Encode images and texts and classify, from a bundle.

Shape legend: N images, M texts or labels, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeclip.bundle import Bundle, read_bundle
from edgeclip.errors import ConfigError
from edgeclip.image import ImageSource, crop_uint8, normalize
from edgeclip.runtime.session import LazySession

T = TypeVar("T")


@dataclass(frozen=True)
class Label:
    """A label and its probability among those asked for."""

    name: str
    probability: float


class ClipRuntime:
    """A loaded bundle. The text graph is not opened by image-only use, nor the other way round."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        self.bundle = bundle
        self._image = LazySession(bundle.image_graph, threads)
        self._text = LazySession(bundle.text_graph, threads)

    @property
    def embedding_size(self) -> int:
        """E, the length of an embedding."""
        return self.bundle.config.projection_dim

    def encode_image(self, images: Sequence[ImageSource], *, batch_size: int = 1) -> NDArray[np.float32]:
        """Embed images.

        Args:
            images: paths, encoded bytes, Pillow images, or uint8 arrays of shape (H, W, 3), (H, W, 4) or (H, W).
            batch_size: images a run of the graph. int8 graphs choose one activation scale for a whole batch; 1 keeps
                an embedding independent of its neighbours.

        Returns:
            (N, E) float32, L2-normalised `image_embeds`.

        Raises:
            ImageError: an image can't be decoded.
            BundleError: the graph can't be opened.
        """
        config = self.bundle.preprocess
        parts = [
            self._image.run(normalize(np.stack([crop_uint8(image, config) for image in batch]), config))
            for batch in _batches(images, batch_size)
        ]
        return self._joined(parts)

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 1) -> NDArray[np.float32]:
        """Embed texts, each batch run up to its longest text's end only.

        Returns:
            (M, E) float32, L2-normalised `text_embeds`.

        Raises:
            BundleError: the graph can't be opened.
        """
        tokenizer = self.bundle.tokenizer
        parts = [self._text.run(tokenizer(batch, pad_to_longest=True)) for batch in _batches(texts, batch_size)]
        return self._joined(parts)

    def classify(
        self, images: Sequence[ImageSource], labels: Sequence[str], *, template: str = "a photo of a {}"
    ) -> list[list[Label]]:
        """Zero-shot classification.

        Args:
            images: as for `encode_image`.
            labels: what to choose from.
            template: a sentence with {} where the label goes.

        Returns:
            For each image every label, the most probable first; probabilities sum to 1.

        Raises:
            ConfigError: no labels, or a template without {}.
        """
        if not labels or "{}" not in template:
            raise ConfigError(
                f"{len(labels)} labels and the template {template!r}",
                expected="at least one label, and {} in the template",
                fix="correct them",
            )
        text_embeds_ME = self.encode_text([template.replace("{}", label) for label in labels])
        logits_NM = self.bundle.manifest.logit_scale * self.encode_image(images) @ text_embeds_ME.T
        weights_NM = np.exp(logits_NM - logits_NM.max(axis=1, keepdims=True))
        probabilities_NM = weights_NM / weights_NM.sum(axis=1, keepdims=True)
        return [[Label(labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")] for row in probabilities_NM]

    def _joined(self, parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(parts) if parts else np.empty((0, self.embedding_size), np.float32)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    if isinstance(items, str | bytes | Path | np.ndarray):
        raise TypeError(f"expected a list, not one {type(items).__name__}")
    for start in range(0, len(items), size):
        yield items[start : start + size]


def load(folder: str | Path, *, threads: int | None = None) -> ClipRuntime:
    """Load a bundle made by `edgeclip export`.

    Args:
        folder: the bundle.
        threads: for the graphs; all processors by default.

    Raises:
        EdgeclipError: the bundle is incomplete, of a newer version, or a file is malformed.
    """
    return ClipRuntime(read_bundle(Path(folder)), threads=threads or os.cpu_count() or 1)
