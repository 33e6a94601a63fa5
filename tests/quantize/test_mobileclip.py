"""MobileCLIP in int8 as it is trained for, and what cannot be made smaller."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import Prepared, prepare
from edgeclip.distill.make_student import Share, equalize_student, make_student
from edgeclip.errors import ConfigError
from edgeclip.export.int8 import PROJECTION
from edgeclip.export.stored import round_what_is_stored
from edgeclip.export.towers import ExportedTextTower, exported_image_tower
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.quantize.sensitivity import choose_float_layers, fake_quantized
from edgeclip.shrink.plan import count_parameters
from tests import mobileclip


@pytest.fixture(scope="module", params=["MobileCLIP-S1", "MobileCLIP2-S3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    with pytest.MonkeyPatch.context() as patch:
        mobileclip.narrow(patch, request.param)
        yield load_checkpoint(mobileclip.write(request.param, tmp_path_factory.mktemp("mobileclip")))


@pytest.fixture(scope="module")
def pairs(captioned_folder: Path) -> Prepared:
    captions = load_data(str(captioned_folder), samples=0, seed=0)
    return prepare(captions, range(4), PreprocessConfig.mobileclip(64), workers=0, on_bad_image="skip")


def layers_of(tower: torch.nn.Module) -> list[str]:
    linears = (name for name, module in tower.named_modules() if isinstance(module, torch.nn.Linear))
    return [name for name in linears if name != PROJECTION]


@torch.no_grad()
def test_what_is_trained_for_is_the_exported_towers_with_every_layer_int8(checkpoint: Checkpoint):
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    input_ids = checkpoint.tokenize(mobileclip.WORDS)
    deployed = DeployedClip(checkpoint.model, checkpoint.preprocess_config)
    for tower, samples, found in (
        (exported_image_tower(checkpoint.model), pixels, deployed.encode_image(pixels)),
        (ExportedTextTower(checkpoint.model).eval(), input_ids, deployed.encode_text(input_ids)),
    ):
        round_what_is_stored(tower)
        exact = tower(samples)
        with fake_quantized(tower, layers_of(tower)):
            expected = torch.cat([tower(sample[None]) for sample in samples])
        assert (found - expected).norm() < 0.5 * (exact - expected).norm()  # what rounds otherwise at a half


def test_gradients_reach_every_parameter_through_int8(checkpoint: Checkpoint):
    model = copy.deepcopy(checkpoint.model).train()
    deployed = DeployedClip(model, checkpoint.preprocess_config)
    images = deployed.encode_image(torch.rand(2, 3, 64, 64))
    texts = deployed.encode_text(checkpoint.tokenize(mobileclip.WORDS[:2]))
    (images[0] @ texts[1]).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()} == {"log_logit_scale"}


def test_layers_are_chosen_of_every_stage(checkpoint: Checkpoint):
    tower, batches = exported_image_tower(checkpoint.model), [torch.rand(2, 3, 64, 64)]
    layers = layers_of(tower)
    assert {"tower.stem_pointwise", "tower.halvings.0.pointwise", "tower.stages.0.0.mlp.fc1"} <= set(layers)
    chosen = choose_float_layers(tower, layers, batches, tower(batches[0]), min_cosine=2.0, at_most=len(layers))
    assert len(chosen) == len(layers)


@torch.no_grad()
def test_a_student_is_equalized_without_changing_it(checkpoint: Checkpoint, pairs: Prepared):
    student = make_student(checkpoint, None, checkpoint, pairs, None)
    equalize_student(student, pairs)
    pixels, input_ids = torch.rand(4, 3, 64, 64), checkpoint.tokenize(mobileclip.WORDS)
    changed = student.model.vision.stages[0][0].context.weight - checkpoint.model.vision.stages[0][0].context.weight
    assert changed.abs().max() > 0
    torch.testing.assert_close(student.model(pixels, input_ids), checkpoint.model(pixels, input_ids), atol=1e-3, rtol=0)


def test_convolutions_are_counted_and_not_shrunk(checkpoint: Checkpoint, pairs: Prepared):
    assert count_parameters(checkpoint.config) == sum(p.numel() for p in checkpoint.model.parameters())
    with pytest.raises(ConfigError, match="a tower with convolutions"):
        make_student(checkpoint, Share(0.5, 1.0, 1.0), checkpoint, pairs, None)
