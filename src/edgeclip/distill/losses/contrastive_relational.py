"""Contrastive relational distillation: the student distributes a batch's similarities as the teacher does.

Shape legend: B pairs of a batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from edgeclip.distill.losses.similarity import check_same_shape


def contrastive_relational_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL divergence of the rows' softmaxes, images to texts and texts to images (CLIP-KD, CRD).

    L = 1/2 [KL(softmax(Z_t) || softmax(Z_s)) + the same for Z^T],  Z_t = a_t V T^T,  Z_s = a_s v t^T

    (Yang et al. 2024, arXiv 2307.12732, "Contrastive Relational Distillation".) Each side has its own scale a, the
    student's is trained by it. `Clip.logit_scale` is a itself, already exponentiated, and kept at or below 100.
    With one teacher it is also the distillation term of MobileCLIP (Vasu et al. 2024, arXiv 2311.17049), which writes
    the cross-entropy: more by the teacher's entropy, a constant.

    Args:
        student_logits: (B, B) scaled similarities of the student, images by texts.
        teacher_logits: (B, B) the teacher's, of the same pairs; no gradient reaches them.

    Returns:
        0-d tensor, at least 0; 0 where the distributions are equal.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(student_logits, teacher_logits)
    teacher_logits = teacher_logits.detach()
    image_to_text = _divergence(student_logits, teacher_logits)
    text_to_image = _divergence(student_logits.T, teacher_logits.T)
    return (image_to_text + text_to_image) / 2


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.kl_div(
        functional.log_softmax(student, dim=-1),
        functional.log_softmax(teacher, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
