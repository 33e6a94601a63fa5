"""The contrastive loss with softened labels: other pairs of a batch may fit a little too.

Shape legend: B pairs of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def softening(progress: float, gamma: float) -> float:
    """How much of the label other pairs share: from 0 at the start of training, linearly, to `gamma` at its end.

    Args:
        progress: the part of training that is done, in [0, 1].
        gamma: the share at the end, in [0, 1).

    Raises:
        ValueError: the progress is outside [0, 1].
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress {progress}; expected a number from 0 to 1")
    return gamma * progress


def soft_contrastive_loss(logits_per_image: Tensor, gamma: float) -> Tensor:
    """Cross-entropy with labels of which the other pairs share `gamma`, by how similar they are.

    L = 1/2 [CE(Y(Z), Z) + CE(Y(Z^T), Z^T)],  Y_ii = 1 - gamma,  Y_ij = gamma softmax_{j != i}(Z_i)_j, a constant

    After LightCLIP (Nie et al. 2023, arXiv 2312.00674), whose abstract says that the labels of negatives are softened
    progressively; the formula and the schedule are this project's. At `gamma` 0 it is the contrastive loss. As the
    softmax is the student's own, the gradient among the negatives has the proportions of their probabilities and
    vanishes where Y_ii is reached: a pair that also fits is pushed away less the longer training lasts.

    Args:
        logits_per_image: (B, B) scaled similarities; row i and column i belong together.
        gamma: in [0, 1); see `softening`.

    Returns:
        0-d tensor, at least 0; 0 for a single pair.
    """
    return (_soft_cross_entropy(logits_per_image, gamma) + _soft_cross_entropy(logits_per_image.T, gamma)) / 2


def _soft_cross_entropy(logits_BB: Tensor, gamma: float) -> Tensor:
    own_BB = torch.eye(logits_BB.shape[0], dtype=torch.bool, device=logits_BB.device)
    others_BB = logits_BB.detach().masked_fill(own_BB, float("-inf")).softmax(dim=-1)
    labels_BB = torch.where(own_BB, 1 - gamma, gamma * others_BB)
    return functional.cross_entropy(logits_BB, labels_BB)
