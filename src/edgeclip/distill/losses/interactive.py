"""Interactive contrastive learning: the student's images find the teacher's texts, its texts the teacher's images.

Shape legend: B pairs, E embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.distill.losses.similarity import check_same_shape, similarities
from edgeclip.model.clip import MAX_LOGIT_SCALE


def interactive_loss(
    image_embeds_BE: Tensor,
    text_embeds_BE: Tensor,
    teacher_image_embeds_BE: Tensor,
    teacher_text_embeds_BE: Tensor,
    logit_scale: Tensor | float,
) -> Tensor:
    """Contrastive loss of the student's embeddings against the teacher's of the other modality (CLIP-KD, ICL).

    L = 1/2 [CE(a v T^T, diagonal) + CE(a t V^T, diagonal)]

    (Yang et al. 2024, arXiv 2307.12732, "Interactive Contrastive Learning".) A student equal to its teacher has the
    teacher's own contrastive loss, which is not the least possible.

    Args:
        image_embeds_BE: (B, E) the student's, L2-normalised, of the teacher's size.
        text_embeds_BE: (B, E) likewise.
        teacher_image_embeds_BE: (B, E) L2-normalised; no gradient reaches the teacher.
        teacher_text_embeds_BE: (B, E) likewise.
        logit_scale: a, exponentiated.

    Returns:
        0-d tensor, at least 0.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(image_embeds_BE, teacher_image_embeds_BE)
    check_same_shape(text_embeds_BE, teacher_text_embeds_BE)
    diagonal = torch.arange(image_embeds_BE.shape[0], device=image_embeds_BE.device)
    images = similarities(image_embeds_BE, teacher_text_embeds_BE.detach(), logit_scale)
    texts = similarities(text_embeds_BE, teacher_image_embeds_BE.detach(), logit_scale)
    return (functional.cross_entropy(images, diagonal) + functional.cross_entropy(texts, diagonal)) / 2


class InteractiveLoss(nn.Module):
    """`interactive_loss` at a learned scale, which starts at 1 / 0.07 and never exceeds 100.

    The paper's code uses its parameter, ln(1 / 0.07), without exponentiating it, so that its scale starts at 2.7, and
    without a limit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def logit_scale(self) -> Tensor:
        """The scale, a 0-d tensor; a parameter that stands at the limit still receives its gradient."""
        return self.log_logit_scale.clamp(max=math.log(MAX_LOGIT_SCALE)).exp()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Bring the parameter back to its limit, after every training step: beyond it no gradient reaches it."""
        self.log_logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def forward(
        self,
        image_embeds_BE: Tensor,
        text_embeds_BE: Tensor,
        teacher_image_embeds_BE: Tensor,
        teacher_text_embeds_BE: Tensor,
    ) -> Tensor:
        """See `interactive_loss`."""
        return interactive_loss(
            image_embeds_BE, text_embeds_BE, teacher_image_embeds_BE, teacher_text_embeds_BE, self.logit_scale
        )
