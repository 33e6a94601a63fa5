"""Contrastive training from scratch, the way the built-in teacher was made.

`accelerate launch` and `torchrun` start it in several processes, which share each batch.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from edgeclip.checkpoint import save_checkpoint
from edgeclip.config import ClipConfig, Config, PreprocessConfig, check_range
from edgeclip.data.load_data import load_data
from edgeclip.data.records import CaptionSet, fingerprint
from edgeclip.distill.batches import Batch, BatchStream, Sampler
from edgeclip.distill.embed import embed_in_chunks, gather
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.similarity import similarities
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import RunFiles, fit, settings_of, start_accelerator
from edgeclip.errors import ConfigError
from edgeclip.model import Clip
from edgeclip.names import BUILTIN
from edgeclip.progress import task
from edgeclip.tokenizer import ClipTokenizer

logger = logging.getLogger(__name__)


class ScratchRecipe(Config, frozen=True, kw_only=True):
    """A recipe of `edgeclip train`.

    `samples` scenes are drawn of the built-in world; of another data set, its first `samples` images are used. A
    vocabulary of `model.text.vocab_size` tokens is learned from the captions of the first `vocabulary_images`.
    """

    data: str
    samples: int
    seed: int
    vocabulary_images: int
    model: ClipConfig
    preprocess: PreprocessConfig
    train: TrainConfig
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        check_range("samples", self.samples, 1, 2**40)
        check_range("vocabulary_images", self.vocabulary_images, 1, 2**40)
        check_range("seed", self.seed, 0, 2**63 - 1)
        side = self.model.vision.image_size
        if (self.preprocess.crop_size or self.preprocess.resize_to) != (side, side):
            raise ConfigError(
                f"crop_size {self.preprocess.crop_size} in the recipe",
                expected=f"[{side}, {side}]",
                fix=f"write crop_size = [{side}, {side}]",
            )


def train_from_scratch(recipe: ScratchRecipe, out: Path, *, workers: int, resume: bool = False) -> Path:
    """Train a new model; state.pt and metrics.jsonl are kept in `out`, and the checkpoint is written at the end.

    The built-in world gives scenes of its training stream, which no evaluation ever uses.

    Returns:
        The checkpoint's folder, `out`/checkpoint, in the Hugging Face layout.

    Raises:
        ConfigError: the learned vocabulary does not fit the model.
        DataError: the set is smaller than a batch.
        TrainingError: see `trainer.fit`.
    """
    captions = load_data(recipe.data, samples=recipe.samples, seed=recipe.seed, training=True)
    total = min(recipe.samples, len(captions))
    tokenizer = _vocabulary(recipe, captions)
    torch.manual_seed(recipe.seed)
    model = Clip(recipe.model)
    sampler = Sampler(total, recipe.train.batch_size, recipe.seed)
    accelerator = start_accelerator(recipe.train.mixed_precision)
    batches = BatchStream(
        captions.records,
        sampler,
        recipe.preprocess,
        tokenizer,
        workers=workers,
        on_skip=_warn,
        share=(accelerator.process_index, accelerator.num_processes),
    )
    steps = recipe.train.epochs * sampler.steps_per_epoch
    with task("training", steps) as advance:
        fit(
            model,
            batches,
            partial(_batch_loss, model, recipe.train.chunk_size, accelerator),
            recipe.train,
            steps=steps,
            files=RunFiles(
                state=out / "state.pt",
                metrics=out / "metrics.jsonl",
                resume=resume,
                identity={"recipe": settings_of(recipe), "data": _data(recipe, captions, total)},
            ),
            on_step=lambda step, loss: advance(1, note=f"loss {loss:.3f}"),
            accelerator=accelerator,
        )
    folder = out / "checkpoint"
    if accelerator.is_main_process:
        save_checkpoint(model, recipe.preprocess, tokenizer, folder, dtype=getattr(torch, recipe.dtype))
    accelerator.end_training()
    return folder


def _batch_loss(model: Clip, chunk_size: int | None, accelerator: Accelerator, batch: Batch) -> Tensor:
    """The contrastive loss of the whole batch, of which `batch` is this process's share."""
    batch = batch.to(accelerator.device)
    image_embeds = gather(embed_in_chunks(model.encode_image, batch.pixel_values, chunk_size), accelerator)
    text_embeds = gather(embed_in_chunks(model.encode_text, batch.input_ids, chunk_size), accelerator)
    return contrastive_loss(similarities(image_embeds, text_embeds, model.logit_scale), model.logit_bias)


def _data(recipe: ScratchRecipe, captions: CaptionSet, total: int) -> str:
    """What tells the data from others; scenes are settled by the recipe's seed, and take long to describe."""
    return BUILTIN if recipe.data == BUILTIN else fingerprint(captions.records[index] for index in range(total))


def _warn(reason: str) -> None:
    logger.warning("left out: %s", reason)


def _vocabulary(recipe: ScratchRecipe, captions: CaptionSet) -> ClipTokenizer:
    text = recipe.model.text
    images = range(min(recipe.vocabulary_images, len(captions)))
    words = (caption for index in images for caption in captions.records[index].captions)
    tokenizer = learn_vocabulary(words, text.vocab_size, text.context_length, fixed_length=not text.causal)
    if (tokenizer.vocab_size, tokenizer.eos_token_id) != (text.vocab_size, text.eos_token_id):
        raise ConfigError(
            f"vocab_size {text.vocab_size} and eos_token_id {text.eos_token_id} in the recipe",
            expected=f"{tokenizer.vocab_size} and {tokenizer.eos_token_id}, which the captions give",
            fix=f"write vocab_size = {tokenizer.vocab_size} and eos_token_id = {tokenizer.eos_token_id}",
        )
    return tokenizer
