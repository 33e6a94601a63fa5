"""The paper's distillation loss.

Shape legend: B pairs of a batch.
"""

from __future__ import annotations

from torch import Tensor

from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.contrastive_relational import contrastive_relational_loss


def paper_loss(student_logits: Tensor, teacher_logits: Tensor, *, alpha: float, temperature: float = 1.0) -> Tensor:
    """Alpha * KL(teacher || student) + (1 - alpha) * CE, in both directions, over a batch's image-text logits.

    L = alpha * tau^2 * 1/2 [KL(softmax(Z_t / tau) || softmax(Z_s / tau)) + the same for Z^T]
        + (1 - alpha) * 1/2 [CE(Z_s, diagonal) + CE(Z_s^T, diagonal)]

    ("A Lightweight CLIP Model for IoT Environments", its distillation objective; tau^2 keeps the gradient's size,
    Hinton et al. 2015, section 2.)

    Args:
        student_logits: (B, B) scaled similarities of the student, images by texts.
        teacher_logits: (B, B) the teacher's, of the same pairs.
        alpha: weight of the divergence, in [0, 1].
        temperature: tau, softens both distributions.

    Returns:
        0-d tensor.
    """
    divergence = contrastive_relational_loss(student_logits / temperature, teacher_logits / temperature)
    return alpha * temperature**2 * divergence + (1 - alpha) * contrastive_loss(student_logits)
