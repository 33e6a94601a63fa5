"""A student before its training: shrunk as its recipe says, and made ready for int8."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch

from edgeclip.checkpoint import Checkpoint
from edgeclip.data.prepare import Prepared
from edgeclip.distill.recipe import FuseConfig, ShrinkConfig
from edgeclip.image import normalize
from edgeclip.model.text import end_of_text_index
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.scale_pairs import pairs_of_clip
from edgeclip.shrink.fuse_tokens import fuse_tokens, with_fusion
from edgeclip.shrink.fusion_schedule import read_schedule
from edgeclip.shrink.importance import Calibration
from edgeclip.shrink.plan import ShrinkPlan, count_parameters, propose
from edgeclip.shrink.student import shrink
from edgeclip.shrink.trim_vocabulary import trim_vocabulary

FUSION_BATCH = 8
"""Images at a time while a fusion is chosen."""


class Share(NamedTuple):
    """A fraction of the teacher's parameters; of the model before so many layers and at most so many heads.

    `depth` None is the fraction itself.
    """

    fraction: float
    depth: float | None
    width: float


Kept: TypeAlias = Share | ShrinkPlan | None
"""What is kept: a share, what a plan says of the model before, or all of it."""


def kept_by_stage(config: ShrinkConfig | None) -> tuple[Kept, ...]:
    """The stages of a recipe, in order."""
    if config is None:
        return (None,)
    return tuple(Share(fraction, config.depth, config.width) for fraction in config.fractions) or (config.plan,)


def make_student(
    parent: Checkpoint, kept: Kept, teacher: Checkpoint, pairs: Prepared, captions: Sequence[str] | None
) -> Checkpoint:
    """The student of a stage, with its tokenizer; where it is smaller it fuses no tokens, see `fuse_student`.

    Args:
        parent: the student of the stage before; at first the teacher.
        kept: what is kept.
        teacher: what fractions refer to.
        pairs: to measure importance on.
        captions: those whose tokens are kept; None keeps all tokens.

    Raises:
        ConfigError: the student would be larger than the model before, or no student is that small.
        TokenizerError: the vocabulary cannot be reduced.
    """
    if kept is None:
        return replace(parent, model=copy.deepcopy(parent.model))
    small = None if captions is None else trim_vocabulary(parent.tokenizer, captions)
    kept_tokens = None if small is None else small.kept_tokens
    if isinstance(kept, ShrinkPlan):
        plan = kept
    else:
        whole, current = (count_parameters(checkpoint.model.config) for checkpoint in (teacher, parent))
        vocab_size = None if kept_tokens is None else len(kept_tokens)
        fraction = min(kept.fraction * whole / current, 1)
        plan = propose(parent.model.config, fraction, vocab_size=vocab_size, depth=kept.depth, width=kept.width)
    model = shrink(with_fusion(parent.model, None), plan, _calibration(parent, pairs), kept_tokens=kept_tokens)
    return replace(parent, model=model, tokenizer_or_reason=small.tokenizer if small else parent.tokenizer)


def fuse_student(student: Checkpoint, config: FuseConfig | None, pairs: Prepared) -> Checkpoint:
    """The student with the fusion that a recipe asks for, if it does.

    Raises:
        ConfigError: the student has not the layers or the tokens.
    """
    if config is None:
        return student
    batches = _calibration(student, pairs).pixel_values.split(FUSION_BATCH)
    return replace(student, model=fuse_tokens(student.model, read_schedule(config.schedule), batches))


@torch.no_grad()
def equalize_student(student: Checkpoint, pairs: Prepared) -> None:
    """Move the size of large channels into weights, in place, so that int8 starts near the float model."""
    model, seen = student.model, _calibration(student, pairs)
    end_N = end_of_text_index(seen.input_ids, model.config.text.eos_token_id).tolist()

    def run() -> None:
        for pixels, ids, end in zip(seen.pixel_values, seen.input_ids, end_N, strict=True):
            model(pixels[None], ids[None, : end + 1])

    equalize(pairs_of_clip(model), run)


def _calibration(checkpoint: Checkpoint, pairs: Prepared) -> Calibration:
    return Calibration(
        torch.from_numpy(normalize(pairs.pixels, checkpoint.preprocess_config)),
        torch.from_numpy(checkpoint.tokenizer(pairs.first_captions, pad_to_longest=True)),
    )
