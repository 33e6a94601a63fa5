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
    """A label and its probability: among those asked for, or for itself where the model judges each for itself."""

    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Classifier:
    """Labels with the embeddings of their prompts, (M, E) float32; made by `ClipRuntime.classifier`.

    With a `logit_bias` each label is judged for itself, as SigLIP was trained: none may fit, or several.
    """

    labels: tuple[str, ...]
    text_embeds: NDArray[np.float32] = field(repr=False)
    logit_scale: float
    logit_bias: float | None = None

    def __call__(self, image_embeds: NDArray[Any]) -> list[list[Label]]:
        """Every label for each image, the most probable first; without a `logit_bias` probabilities sum to 1.

        Args:
            image_embeds: (N, E), or (E,) for one image, of any type that embeddings are given out in.

        Raises:
            InputError: they are of another shape, or no numbers.
        """
        logits_NM = self.logit_scale * self._checked(image_embeds) @ self.text_embeds.T
        probabilities_NM = _softmax(logits_NM) if self.logit_bias is None else _sigmoid(logits_NM + self.logit_bias)
        orders_NM = np.argsort(-logits_NM, axis=1, kind="stable")
        return [
            [Label(self.labels[i], float(row[i])) for i in order]
            for row, order in zip(probabilities_NM, orders_NM, strict=True)
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


def _softmax(logits_NM: NDArray[Any]) -> NDArray[Any]:
    weights_NM = np.exp(logits_NM - logits_NM.max(axis=1, keepdims=True))
    return weights_NM / weights_NM.sum(axis=1, keepdims=True)


def _sigmoid(logits_NM: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-x)) in a form that does not overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits_NM)
