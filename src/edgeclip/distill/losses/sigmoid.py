"""The pairwise sigmoid loss of SigLIP.

Shape legend: B pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sigmoid_loss(logits_per_image: Tensor) -> Tensor:
    """Each image with each text is a question of its own: do they belong together?

    L = -1/B sum_ij log sigmoid(z_ij l_ij),  z_ij = 1 for i = j, else -1

    (Zhai et al. 2023, arXiv 2303.15343, equation 1.)

    Args:
        logits_per_image: (B, B) scaled cosine similarities plus the bias; row i and column i belong together.

    Returns:
        0-d tensor.
    """
    B = logits_per_image.shape[0]
    signs_BB = 2 * torch.eye(B, device=logits_per_image.device, dtype=logits_per_image.dtype) - 1
    return -functional.logsigmoid(signs_BB * logits_per_image).sum() / B
