"""The training of one stage: a student follows its teacher's cached embeddings, in float or as int8 will compute."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgeclip.checkpoint import Checkpoint
from edgeclip.data.records import Record
from edgeclip.distill.batches import Batch, BatchStream, Sampler
from edgeclip.distill.cache import CachedTeacher
from edgeclip.distill.embed import embed_in_chunks, gather
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.losses.mix import TOKEN_LOSSES
from edgeclip.distill.losses.outputs import Outputs, outputs_of
from edgeclip.distill.recipe import DistillRecipe
from edgeclip.distill.trainer import RunFiles, fit, settings_of
from edgeclip.errors import ConfigError
from edgeclip.model import Clip
from edgeclip.model.layers import Tokens
from edgeclip.progress import Advance
from edgeclip.quantize.deployed import DeployedClip


@dataclass(frozen=True)
class StageContext:
    """What all stages share: the training set, what the teacher makes of it, and where the work is done.

    `teacher` itself only runs for losses that need its tokens; `folder` is where states and metrics are kept.
    """

    recipe: DistillRecipe
    seed: int
    records: Sequence[Record]
    cache: CachedTeacher
    teacher: Clip
    folder: Path
    workers: int
    accelerator: Accelerator
    on_skip: Callable[[str], None]

    @property
    def sampler(self) -> Sampler:
        """Which pairs make up each step."""
        return Sampler(len(self.records), self.recipe.train.batch_size, self.seed, self.cache.unreadable)

    @property
    def steps(self) -> int:
        """Steps of a stage."""
        return self.recipe.train.epochs * self.sampler.steps_per_epoch


class StudentWithLoss(nn.Module):
    """What training changes: the student, and what the losses learn themselves."""

    def __init__(self, student: Clip, loss: DistillationLoss) -> None:
        super().__init__()
        self.student, self.loss = student, loss

    def clamp_logit_scale(self) -> None:
        """Keep both scales at or below 100."""
        self.student.clamp_logit_scale()
        self.loss.clamp_logit_scale()


class StepLoss:
    """The loss of a step's batch, the student being in float at first, and in the last part of a stage as int8."""

    def __init__(self, student: Checkpoint, loss: DistillationLoss, context: StageContext) -> None:
        """Check that the loss can be had.

        Raises:
            ConfigError: it is one of tokens, and several processes train; see also `DeployedClip`.
        """
        if loss.needs_student_tokens and context.accelerator.num_processes > 1:
            raise ConfigError(
                f"a loss of tokens with {context.accelerator.num_processes} processes",
                expected="one, which has the tokens of the whole batch",
                fix="start one process, or leave out " + " and ".join(TOKEN_LOSSES),
            )
        self._student, self._loss, self._context = student.model, loss, context
        self._deployed = DeployedClip(student.model, student.preprocess_config)
        share = context.recipe.qad_share
        self._first_int8 = context.steps - (max(round(context.steps * share), 1) if share > 0 else 0)
        self._scale = torch.tensor(context.cache.logit_scale, device=context.accelerator.device)
        self._teacher = copy.deepcopy(context.teacher).to(self._scale.device) if loss.needs_teacher_tokens else None

    def __call__(self, numbered: tuple[int, Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of a step's number and this process's share of its batch; see `DistillationLoss`."""
        step, batch = numbered[0], numbered[1].to(self._scale.device)
        assert batch.targets is not None  # noqa: S101 - there is a cache
        as_int8 = step >= self._first_int8
        tokens = self._loss.needs_student_tokens and not as_int8
        if tokens:
            seen = outputs_of(self._student, batch.pixel_values, batch.input_ids, tokens=True)
        else:
            seen = self._embeddings(self._deployed if as_int8 else self._student, batch)
        image_embeds, text_embeds = (gather(embeds, self._context.accelerator) for embeds in batch.targets)
        image_tokens, text_tokens = self._teacher_tokens(batch) if tokens else (None, None)
        wanted = Outputs(image_embeds, text_embeds, self._scale, image_tokens, text_tokens)
        return self._loss(seen, wanted, progress=step / self._context.steps, tokens=tokens)

    def _embeddings(self, encoder: Clip | DeployedClip, batch: Batch) -> Outputs:
        chunk, accelerator = self._context.recipe.train.chunk_size, self._context.accelerator
        return Outputs(
            gather(embed_in_chunks(encoder.encode_image, batch.pixel_values, chunk), accelerator),
            gather(embed_in_chunks(encoder.encode_text, batch.input_ids, chunk), accelerator),
            self._student.logit_scale,
            logit_bias=self._student.logit_bias,
        )

    @torch.no_grad()
    def _teacher_tokens(self, batch: Batch) -> tuple[Tokens | None, Tokens | None]:
        """Those of the towers whose layers are compared."""
        mix = self._context.recipe.loss
        return (
            self._teacher.image_features(batch.pixel_values)[1] if self._teacher and mix.vision_layers else None,
            self._teacher.text_features(batch.input_ids)[1] if self._teacher and mix.text_layers else None,
        )


def train_stage(
    student: Checkpoint, context: StageContext, *, name: str, resume: bool, advance: Advance
) -> list[float]:
    """Train a student in place; its state is `name`.pt and its metrics are `name`.jsonl in the context's folder.

    Returns:
        The loss of every step.

    Raises:
        ConfigError: the losses do not fit the two models, or the number of processes.
        DataError: the cache is of other images, or the set is smaller than a batch.
        TrainingError: see `trainer.fit`.
    """
    recipe, accelerator = context.recipe, context.accelerator
    torch.manual_seed(context.seed)
    loss = DistillationLoss(recipe.loss, student.model.config, context.teacher.config)
    stream = BatchStream(
        context.records,
        context.sampler,
        student.preprocess_config,
        student.tokenizer,
        workers=context.workers,
        on_skip=context.on_skip,
        share=(accelerator.process_index, accelerator.num_processes),
        cache=context.cache,
    )
    return fit(
        StudentWithLoss(student.model, loss),
        lambda steps: zip(steps, stream(steps), strict=True),
        StepLoss(student, loss, context),
        recipe.train,
        steps=context.steps,
        files=RunFiles(
            state=context.folder / f"{name}.pt",
            metrics=context.folder / f"{name}.jsonl",
            resume=resume,
            identity={"recipe": settings_of(recipe), "seed": context.seed, "cache": context.cache.identity},
        ),
        on_step=lambda step, loss: advance(1, note=f"loss {loss:.4f}"),
        accelerator=accelerator,
    )
