"""Students of one stage and of several, before their training."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import Prepared, prepare
from edgeclip.distill.make_student import Share, equalize_student, fuse_student, kept_by_stage, make_student
from edgeclip.distill.recipe import FuseConfig, ShrinkConfig
from edgeclip.errors import ConfigError
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.shrink.plan import ShrinkPlan, TowerPlan, count_parameters
from tests.byte_images import byte_images


@pytest.fixture
def teacher(mini_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(mini_checkpoint)


@pytest.fixture
def pairs(captioned_folder: Path) -> Prepared:
    captions = load_data(str(captioned_folder), samples=0, seed=0)
    return prepare(captions, range(4), PreprocessConfig.clip(32), workers=0, on_bad_image="skip")


def size(checkpoint: Checkpoint) -> int:
    return count_parameters(checkpoint.model.config)


def test_a_copy_is_trained_and_not_the_teacher(teacher: Checkpoint, pairs: Prepared):
    (stage,) = kept_by_stage(None)
    student = make_student(teacher, stage, teacher, pairs, None)
    student.model.vision.projection.weight.data.zero_()
    assert teacher.model.vision.projection.weight.any()
    assert student.tokenizer is teacher.tokenizer


def test_every_stage_is_a_fraction_of_the_teacher(teacher: Checkpoint, pairs: Prepared):
    student = teacher
    for share in kept_by_stage(ShrinkConfig(fractions=(0.9, 0.7), depth=1.0)):
        parent, student = student, make_student(student, share, teacher, pairs, None)
        # Never above; a whole head may be missing below.
        assert 0.6 * share.fraction < size(student) / size(teacher) <= share.fraction
        assert size(student) < size(parent)
        assert student.model.config.vision.num_hidden_layers == teacher.model.config.vision.num_hidden_layers


def test_the_vocabulary_is_reduced_once(teacher: Checkpoint, pairs: Prepared):
    captions = pairs.first_captions
    student = teacher
    for _ in range(2):
        student = make_student(student, Share(0.8, None, 1.0), teacher, pairs, captions)
        assert student.model.config.text.vocab_size == student.tokenizer.vocab_size < teacher.tokenizer.vocab_size
    before, after = teacher.tokenizer(captions), student.tokenizer(captions)
    assert (before.shape, len(np.unique(before))) == (after.shape, len(np.unique(after)))


def test_a_student_larger_than_its_teacher_is_refused(teacher: Checkpoint, pairs: Prepared):
    tower = TowerPlan(layers=(0, 1), num_attention_heads=3, intermediate_size=48)
    plan = ShrinkPlan(vision=tower, text=tower, vocabulary="whole")
    with pytest.raises(ConfigError, match="no larger than its teacher"):
        make_student(teacher, plan, teacher, pairs, None)


@torch.no_grad()
def test_equalizing_repairs_the_outlier_twin(teacher: Checkpoint, pairs: Prepared):
    torch.manual_seed(2)
    for parameter in teacher.model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    twin = dataclasses.replace(teacher, model=outlier_twin(teacher.model))
    pixel_values = byte_images(8)
    exact = teacher.model.encode_image(pixel_values)

    def lost() -> float:
        return (
            1
            - (DeployedClip(twin.model, twin.preprocess_config).encode_image(pixel_values) * exact)
            .sum(dim=1)
            .mean()
            .item()
        )

    damaged = lost()
    equalize_student(twin, pairs)
    torch.testing.assert_close(twin.model.encode_image(pixel_values), exact, atol=1e-4, rtol=0)
    assert lost() < damaged / 4


def test_a_student_of_a_recipe_with_fuse_fuses_tokens_and_its_own_students_anew(teacher: Checkpoint, pairs: Prepared):
    whole = fuse_student(teacher, None, pairs)
    assert whole is teacher
    student = fuse_student(make_student(teacher, None, teacher, pairs, None), FuseConfig(schedule="2@1"), pairs)
    fusion = student.model.config.vision.fusion
    assert fusion is not None
    assert fusion.steps == ((1, 2),)
    equalize_student(student, pairs)
    smaller = make_student(student, Share(0.9, 1.0, 1.0), teacher, pairs, None)
    assert smaller.model.config.vision.fusion is None
    assert teacher.model.config.vision.fusion is None
    with pytest.raises(ConfigError, match="fuse_tokens"):
        fuse_student(student, FuseConfig(schedule="3@1"), pairs)
