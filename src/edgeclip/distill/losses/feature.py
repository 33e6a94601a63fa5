"""Feature distillation: the student's embeddings point where the teacher's do.

Shape legend: B pairs, S and E embedding sizes of student and teacher.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeclip.distill.losses.similarity import cosine_distance


def feature_loss(
    image_embeds_BE: Tensor, text_embeds_BE: Tensor, teacher_image_embeds_BE: Tensor, teacher_text_embeds_BE: Tensor
) -> Tensor:
    """One minus the cosine of student and teacher, mean over pairs and both modalities (CLIP-KD, FD).

    L = 1/2 [mean_i (1 - cos(v_i, V_i)) + mean_i (1 - cos(t_i, T_i))]

    The paper (Yang et al. 2024, arXiv 2307.12732, "Feature Distillation") writes a squared error, which its code
    averages over the E values of unit vectors, sums over modalities and weights with 2000. As |v - V|^2 = 2 (1 - cos),
    that is this loss with the weight 8000 / E: 15.6 at E = 512. In this form the weight does not depend on E.

    Args:
        image_embeds_BE: (B, E) the student's, projected to the teacher's size where it differs (`projection`).
        text_embeds_BE: (B, E) likewise.
        teacher_image_embeds_BE: (B, E).
        teacher_text_embeds_BE: (B, E).

    Returns:
        0-d tensor, from 0 (the same directions) to 2.

    Raises:
        ValueError: the shapes differ.
    """
    images = cosine_distance(image_embeds_BE, teacher_image_embeds_BE).mean()
    texts = cosine_distance(text_embeds_BE, teacher_text_embeds_BE).mean()
    return (images + texts) / 2


class Projection(nn.Linear):
    """(..., S) -> (..., E): the student's vectors in the teacher's space, learned with the student, dropped afterwards.

    CLIP-KD projects the embedding before it is normalised, with a bias. Without one the direction of the result does
    not depend on the vector's length, so that normalised embeddings lose nothing. It starts orthogonal: all cosines
    between the student's own vectors are kept where E >= S.
    """

    def __init__(self, student_size: int, teacher_size: int) -> None:
        super().__init__(student_size, teacher_size, bias=False)

    def reset_parameters(self) -> None:
        """Start orthogonal."""
        nn.init.orthogonal_(self.weight)


def projection(student_size: int, teacher_size: int) -> nn.Module:
    """A `Projection` where the sizes differ, otherwise nothing to learn."""
    return nn.Identity() if student_size == teacher_size else Projection(student_size, teacher_size)
