"""Similarities and distances that the losses are made of, in float32 or wider whatever the embeddings come in.

Shape legend: B images, N texts, E embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def widened(x: Tensor) -> Tensor:
    """Half-precision values as float32, wider ones as they are: at scale 100 a half keeps 0.06 of a logit."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def similarities(image_embeds_BE: Tensor, text_embeds_NE: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Scaled cosine similarities, `logits_per_image`.

    Args:
        image_embeds_BE: (B, E) L2-normalised.
        text_embeds_NE: (N, E) L2-normalised.
        logit_scale: the factor 1 / temperature itself (as `Clip.logit_scale`), not its logarithm.

    Returns:
        (B, N).
    """
    with torch.autocast(image_embeds_BE.device.type, enabled=False):  # it would take the product in half
        return logit_scale * widened(image_embeds_BE) @ widened(text_embeds_NE).T


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse what would silently broadcast.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}; expected equal shapes")


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of each vector and the teacher's; no gradient reaches the teacher.

    Args:
        student: (..., E) vectors of any length.
        teacher: the same shape.

    Returns:
        (...), in [0, 2].

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(student, teacher)
    return 1 - functional.cosine_similarity(widened(student), widened(teacher.detach()), dim=-1)
