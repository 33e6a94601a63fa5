"""Zero-shot classification from embeddings.

Shape legend: N images, M labels, E embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Label:
    """A label and its probability among those asked for."""

    name: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """Labels with the embeddings of their prompts, (M, E) float32; made by `ClipRuntime.classifier`."""

    labels: tuple[str, ...]
    text_embeds: NDArray[np.float32]
    logit_scale: float

    def __call__(self, image_embeds: NDArray[np.float32]) -> list[list[Label]]:
        """For each row of `image_embeds` (N, E) every label, the most probable first; probabilities sum to 1."""
        logits_NM = self.logit_scale * image_embeds @ self.text_embeds.T
        weights_NM = np.exp(logits_NM - logits_NM.max(axis=1, keepdims=True))
        probabilities_NM = weights_NM / weights_NM.sum(axis=1, keepdims=True)
        return [
            [Label(self.labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")] for row in probabilities_NM
        ]
