"""Hidden states: the student's feature maps follow the teacher's, token by token.

Shape legend: B inputs, T tokens, S and D hidden sizes of student and teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.distill.losses.feature import projection
from edgeclip.distill.losses.similarity import cosine_distance, widened
from edgeclip.model.layers import Tokens

LayerPairs = tuple[tuple[int, int], ...]
"""(student's, teacher's) blocks, each counted from 1."""


def hidden_state_loss(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """One minus the cosine of each token's states, mean over the tokens that are not padding.

    L = mean_{b, t} (1 - cos(h_bt, H_bt)),  half the squared error of the normalised states

    The feature maps that "A Lightweight CLIP Model for IoT Environments" leaves to future work; hints between layers
    are of Romero et al. 2015, FitNets, section 2.2. The cosine leaves out the states' lengths, of which a few tokens
    of large transformers have enormous ones that a plain squared error would follow alone.

    Args:
        student_BTD: (B, T, D) the student's, projected to the teacher's size where it differs.
        teacher_BTD: (B, T, D), of the same tokens; no gradient reaches it.
        mask_BT: (B, T) bool, False for padding.

    Returns:
        0-d tensor, from 0 to 2.

    Raises:
        ValueError: the shapes differ.
    """
    return cosine_distance(student_BTD, teacher_BTD)[mask_BT].mean()


class HiddenStateLoss(nn.Module):
    """The mean over pairs of blocks of one tower, each with a projection of its own where the sizes differ."""

    def __init__(self, pairs: LayerPairs, student_size: int, teacher_size: int) -> None:
        super().__init__()
        self.pairs = pairs
        self.projections = nn.ModuleList(projection(student_size, teacher_size) for _ in pairs)

    def forward(self, student: Tokens, teacher: Tokens) -> Tensor:
        """Tokens of both towers for the same inputs -> 0-d tensor; raises ValueError where their shapes differ."""
        losses = [
            hidden_state_loss(
                project(widened(student.hidden_states[s - 1])), teacher.hidden_states[t - 1], student.mask
            )
            for project, (s, t) in zip(self.projections, self.pairs, strict=True)
        ]
        return torch.stack(losses).mean()
