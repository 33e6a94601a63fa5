"""A stage of distillation: which losses act in which part of it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.data.augment import AugmentConfig
from edgeclip.data.load_data import load_data
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.losses.mix import LossMix
from edgeclip.distill.make_student import make_student
from edgeclip.distill.recipe import CacheConfig, DistillRecipe
from edgeclip.distill.teacher import build_cache
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import start_accelerator
from edgeclip.distill.training_stage import StageContext, StepLoss, train_stage
from edgeclip.errors import ConfigError

TRAIN = TrainConfig(epochs=2, batch_size=8, lr=1e-3)


@pytest.fixture
def teacher(mini_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(mini_checkpoint)


def context(teacher: Checkpoint, data: Path, folder: Path, mix: LossMix, qad_share: float) -> StageContext:
    records = load_data(str(data), samples=0, seed=0).records
    config = CacheConfig(augment=AugmentConfig())
    cache = build_cache(teacher, records, folder / "cache", config, seed=0, on_skip=print)
    return StageContext(
        recipe=DistillRecipe(samples=24, loss=mix, train=TRAIN, qad_share=qad_share),
        seed=0,
        records=records,
        cache=cache,
        teacher=teacher.model,
        folder=folder,
        workers=0,
        accelerator=start_accelerator(cpu=True),
        on_skip=print,
    )


def test_losses_of_tokens_act_until_int8_begins(teacher: Checkpoint, captioned_folder: Path, tmp_path: Path):
    mix = LossMix(feature=1.0, patch_word=0.1, hidden_state=1.0, vision_layers=((1, 1), (2, 2)), text_layers=((2, 2),))
    student = make_student(teacher, None, teacher, None, None)
    given = context(teacher, captioned_folder, tmp_path, mix, 0.5)
    losses = train_stage(student, given, name="stage-1", resume=False, advance=lambda n, note="": None)
    steps = [json.loads(line) for line in (tmp_path / "stage-1.jsonl").read_text().splitlines()]
    assert len(losses) == len(steps) == 6
    assert [sorted(step["parts"]) for step in steps[:3]] == [["feature", "hidden_state", "patch_word"]] * 3
    assert [sorted(step["parts"]) for step in steps[3:]] == [["feature"]] * 3
    hidden = [step["parts"]["hidden_state"] for step in steps[:3]]
    assert hidden[0] < 1e-6 < hidden[1]  # at first the student is its teacher
    assert steps[0]["parts"]["feature"] < 1e-5  # whose cached embeddings are rounded to 16 bits


def test_losses_of_tokens_need_one_process(teacher: Checkpoint, captioned_folder: Path, tmp_path: Path):
    given = context(teacher, captioned_folder, tmp_path, LossMix(patch_word=1.0), 0.0)
    several = replace(given, accelerator=SimpleNamespace(num_processes=2, device=given.accelerator.device))
    loss = DistillationLoss(given.recipe.loss, teacher.model.config, teacher.model.config)
    StepLoss(teacher, loss, given)
    with pytest.raises(ConfigError, match="2 processes"):
        StepLoss(teacher, loss, several)
