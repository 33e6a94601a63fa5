"""The contrastive loss of CLIP, and of a sigmoid model its own.

Shape legend: B pairs, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgeclip.distill.losses.sigmoid import sigmoid_loss


def contrastive_loss(logits_per_image: Tensor, logit_bias: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy of a batch's similarities (Radford et al. 2021, figure 3; InfoNCE).

    L = 1/2 [CE(logits, diagonal) + CE(logits^T, diagonal)]

    Args:
        logits_per_image: (B, B) scaled cosine similarities; row i and column i belong together.
        logit_bias: of a model that judges each pair for itself; with it, the loss is `sigmoid_loss`.

    Returns:
        0-d tensor.
    """
    if logit_bias is not None:
        return sigmoid_loss(logits_per_image + logit_bias)
    diagonal = torch.arange(logits_per_image.shape[0], device=logits_per_image.device)
    image_to_text = functional.cross_entropy(logits_per_image, diagonal)
    text_to_image = functional.cross_entropy(logits_per_image.T, diagonal)
    return (image_to_text + text_to_image) / 2
