"""The training of one stage: a student follows its teacher's cached embeddings, in float or as int8 will compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgeclip.checkpoint import Loaded
from edgeclip.config import ClipConfig
from edgeclip.data.records import Record
from edgeclip.distill.batches import Batch, Sampler, stream_batches
from edgeclip.distill.cache import CachedTeacher
from edgeclip.distill.embed import embed_in_chunks, gather
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.losses.outputs import Outputs
from edgeclip.distill.recipe import DistillRecipe
from edgeclip.distill.trainer import fit
from edgeclip.model import Clip
from edgeclip.progress import Advance
from edgeclip.quantize.deployed import DeployedClip


@dataclass(frozen=True)
class Lesson:
    """What all stages share: the training set, what the teacher makes of it, and where the work is done.

    `folder` is where states and metrics are kept.
    """

    recipe: DistillRecipe
    seed: int
    records: Sequence[Record]
    cache: CachedTeacher
    teacher_config: ClipConfig
    folder: Path
    workers: int
    accelerator: Accelerator
    on_bad_image: Callable[[str], None]

    @property
    def sampler(self) -> Sampler:
        """Which pairs make up each step."""
        return Sampler(len(self.records), self.recipe.train.batch_size, self.seed)

    @property
    def steps(self) -> int:
        """Steps of a stage."""
        return self.recipe.train.epochs * self.sampler.steps_per_epoch


class Pupil(nn.Module):
    """What training changes: the student, and what the losses learn themselves."""

    def __init__(self, student: Clip, loss: DistillationLoss) -> None:
        super().__init__()
        self.student, self.loss = student, loss

    def clamp_logit_scale(self) -> None:
        """Keep both scales at or below 100."""
        self.student.clamp_logit_scale()
        self.loss.clamp_logit_scale()


def train_stage(student: Loaded, lesson: Lesson, *, name: str, resume: bool, advance: Advance) -> list[float]:
    """Train a student in place; its state is `name`.pt and its metrics are `name`.jsonl in the lesson's folder.

    Returns:
        The loss of every step.

    Raises:
        ConfigError: the losses do not fit the two models.
        DataError: the cache is of other images, or the set is smaller than a batch.
        TrainingError: see `trainer.fit`.
    """
    recipe, accelerator, steps = lesson.recipe, lesson.accelerator, lesson.steps
    torch.manual_seed(lesson.seed)
    pupil = Pupil(student.model, DistillationLoss(recipe.loss, student.model.config, lesson.teacher_config))
    encoders = (student.model, DeployedClip(student.model))
    teacher_scale = torch.tensor(lesson.cache.logit_scale)

    def batches(wanted: range) -> Iterator[tuple[int, Batch]]:
        stream = stream_batches(
            lesson.records,
            lesson.sampler,
            student.preprocess_config,
            student.tokenizer,
            workers=lesson.workers,
            steps=wanted,
            on_bad_image=lesson.on_bad_image,
            share=(accelerator.process_index, accelerator.num_processes),
            cache=lesson.cache,
        )
        return zip(wanted, stream, strict=True)

    def loss_of(numbered: tuple[int, Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        step, batch = numbered[0], numbered[1].to(accelerator.device)
        assert batch.targets is not None  # noqa: S101 - there is a cache
        encoder = encoders[step >= round(steps * (1 - recipe.qad_share))]
        chunk = recipe.train.chunk_size
        seen = Outputs(
            gather(embed_in_chunks(encoder.encode_image, batch.pixel_values, chunk), accelerator),
            gather(embed_in_chunks(encoder.encode_text, batch.input_ids, chunk), accelerator),
            student.model.logit_scale,
        )
        image_embeds, text_embeds = (gather(embeds, accelerator) for embeds in batch.targets)
        wanted = Outputs(image_embeds, text_embeds, teacher_scale.to(accelerator.device))
        return pupil.loss(seen, wanted, progress=step / steps)

    return fit(
        pupil,
        batches,
        loss_of,
        recipe.train,
        steps=steps,
        identity={"recipe": msgspec.to_builtins(recipe), "seed": lesson.seed, "cache": lesson.cache.identity},
        state_file=lesson.folder / f"{name}.pt",
        metrics_file=lesson.folder / f"{name}.jsonl",
        resume=resume,
        on_step=lambda step, loss: advance(1, note=f"loss {loss:.4f}"),
        accelerator=accelerator,
    )
