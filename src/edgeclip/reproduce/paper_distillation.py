"""The paper's distillation: its loss on a student, float or dynamically quantized, with cached teacher embeddings.

Shape legend: N training pairs, B pairs of a batch, E embedding size, T tokens, H and W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeclip.config import PreprocessConfig
from edgeclip.distill.batches import Sampler
from edgeclip.distill.state import digest
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import NOT_KEPT, RunFiles, fit
from edgeclip.image import normalize
from edgeclip.model import Clip
from edgeclip.reproduce.paper_loss import paper_loss


@dataclass(frozen=True)
class DistillData:
    """Training pairs and what the teacher makes of them; the teacher never runs again.

    `pixels` (N, H, W, 3) uint8, `input_ids` (N, T) int64; the teacher's `image_embeds`, `text_embeds` (N, E) float32.
    """

    pixels: NDArray[np.uint8]
    input_ids: NDArray[np.int64]
    image_embeds: NDArray[np.float32]
    text_embeds: NDArray[np.float32]
    teacher_scale: float
    preprocess: PreprocessConfig


@dataclass(frozen=True)
class PaperLoss:
    """Settings of the paper's loss."""

    alpha: float
    temperature: float


def batch_loss(student: Clip, data: DistillData, indices_B: NDArray[np.int64], settings: PaperLoss) -> Tensor:
    """The paper's loss of one batch of pairs."""
    pixel_values = torch.from_numpy(normalize(data.pixels[indices_B], data.preprocess))
    student_logits = student(pixel_values, torch.from_numpy(data.input_ids[indices_B]))
    teacher_logits = data.teacher_scale * torch.from_numpy(data.image_embeds[indices_B] @ data.text_embeds[indices_B].T)
    return paper_loss(student_logits, teacher_logits, alpha=settings.alpha, temperature=settings.temperature)


def distill_as_paper(
    student: Clip,
    data: DistillData,
    settings: PaperLoss,
    train: TrainConfig,
    *,
    seed: int,
    files: RunFiles = NOT_KEPT,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train a student in place with the paper's loss; a dynamically quantized one trains only what is left in float.

    What tells the run from others is added to `files`.

    Returns:
        The loss of every step.

    Raises:
        DataError: fewer pairs than a batch.
        TrainingError: see `trainer.fit`.
    """
    sampler = Sampler(len(data.pixels), train.batch_size, seed)

    def batches(steps: range) -> Iterator[NDArray[np.int64]]:
        return (sampler.indices(step) for step in steps)

    with warnings.catch_warnings():
        # PyTorch says at every quantized layer that no gradient passes; the findings say it once, with numbers.
        warnings.filterwarnings("ignore", message=".*autograd kernel was not registered.*")
        return fit(
            student,
            batches,
            lambda indices: batch_loss(student, data, indices, settings),
            train,
            steps=train.epochs * sampler.steps_per_epoch,
            files=replace(files, identity=_identity(student, data, settings, train, seed)),
            on_step=on_step,
        )


def _identity(
    student: Clip, data: DistillData, settings: PaperLoss, train: TrainConfig, seed: int
) -> dict[str, str | float]:
    return {
        "alpha": settings.alpha,
        "temperature": settings.temperature,
        "lr": train.lr,  # all students of a reproduction are to be trained alike
        "seed": seed,
        "data": digest(data.pixels, data.input_ids, data.image_embeds, data.text_embeds),
        "initial weights": digest(*(p.detach().numpy() for p in student.parameters())),
    }


def gradients(student: Clip, data: DistillData, indices_B: NDArray[np.int64], settings: PaperLoss) -> dict[str, Tensor]:
    """The gradient of one batch's loss for every parameter that receives one other than zero."""
    student.zero_grad(set_to_none=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*autograd kernel was not registered.*")
        batch_loss(student, data, indices_B, settings).backward()
    reached = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None and bool(p.grad.any())}
    student.zero_grad(set_to_none=True)
    return reached
