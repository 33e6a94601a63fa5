"""Zero-shot classification from embeddings.

Shape legend: N images, M labels, E embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeclip.errors import InputError
from edgeclip.runtime.embedding_dtype import as_float32


@dataclass(frozen=True)
class Label:
    """A label and its probability among those asked for."""

    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Classifier:
    """Labels with the embeddings of their prompts, (M, E) float32; made by `ClipRuntime.classifier`."""

    labels: tuple[str, ...]
    text_embeds: NDArray[np.float32] = field(repr=False)
    logit_scale: float

    def __call__(self, image_embeds: NDArray[Any]) -> list[list[Label]]:
        """Every label for each image, the most probable first; probabilities sum to 1.

        Args:
            image_embeds: (N, E), or (E,) for one image, of any type that embeddings are given out in.

        Raises:
            InputError: they are of another shape, or no numbers.
        """
        logits_NM = self.logit_scale * self._checked(image_embeds) @ self.text_embeds.T
        weights_NM = np.exp(logits_NM - logits_NM.max(axis=1, keepdims=True))
        probabilities_NM = weights_NM / weights_NM.sum(axis=1, keepdims=True)
        return [
            [Label(self.labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")] for row in probabilities_NM
        ]

    def _checked(self, image_embeds: NDArray[Any]) -> NDArray[np.float32]:
        E = self.text_embeds.shape[1]
        is_array = isinstance(image_embeds, np.ndarray) and image_embeds.dtype.kind in "fi"
        if not is_array or image_embeds.ndim not in (1, 2) or image_embeds.shape[-1] != E:
            got = f"an array {image_embeds.shape} of {image_embeds.dtype}" if is_array else type(image_embeds).__name__
            raise InputError(
                f"`image_embeds`, {got}", expected=f"what `encode_image` gives, (N, {E})", fix="call `classify`"
            )
        return as_float32(np.atleast_2d(image_embeds))
