"""Affinity mimicking: the teacher's similarities between a batch's images and texts as soft labels.

Shape legend: B pairs, S and E embedding sizes of student and teacher, which may differ.
"""

from __future__ import annotations

from torch import Tensor

from edgeclip.distill.losses.contrastive_relational import contrastive_relational_loss
from edgeclip.distill.losses.similarity import similarities


def affinity_loss(
    image_embeds_BS: Tensor,
    text_embeds_BS: Tensor,
    teacher_image_embeds_BE: Tensor,
    teacher_text_embeds_BE: Tensor,
    *,
    logit_scale: float = 50.0,
) -> Tensor:
    """Divergence of the affinities at one fixed scale (TinyCLIP, "Affinity Mimicking").

    L = 1/2 [KL(softmax(a V T^T) || softmax(a v t^T)) + the same for texts to images]

    (Wu et al. 2023, arXiv 2309.12314.) The paper minimises the cross-entropy, which is more by the teacher's entropy:
    a constant, so that the gradient is the same, and here 0 is a perfect student. The paper's code fixes both scales
    at a = 50: the student cannot lower its loss by a flatter temperature, and the loss does not train `logit_scale`.

    Args:
        image_embeds_BS: (B, S) the student's, L2-normalised.
        text_embeds_BS: (B, S) likewise.
        teacher_image_embeds_BE: (B, E) L2-normalised; no gradient reaches the teacher.
        teacher_text_embeds_BE: (B, E) likewise.
        logit_scale: a, of both.

    Returns:
        0-d tensor, at least 0.

    Raises:
        ValueError: student and teacher saw different numbers of pairs.
    """
    student_logits = similarities(image_embeds_BS, text_embeds_BS, logit_scale)
    teacher_logits = similarities(teacher_image_embeds_BE, teacher_text_embeds_BE, logit_scale)
    return contrastive_relational_loss(student_logits, teacher_logits)
