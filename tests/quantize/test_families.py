"""SigLIP in int8 as it is trained for: what is deployed, equalized, and made a student of."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import Prepared, prepare
from edgeclip.distill.make_student import Share, equalize_student, make_student
from edgeclip.errors import ConfigError
from edgeclip.export.calibration_batches import text_batches
from edgeclip.export.int8 import PROJECTION
from edgeclip.export.stored import round_what_is_stored
from edgeclip.export.tower_pairs import pairs_of_tower
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.sensitivity import choose_float_layers, fake_quantized
from edgeclip.shrink.plan import ShrinkPlan, TowerPlan, count_parameters, propose
from tests import published


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(published.write_siglip2(tmp_path_factory.mktemp("siglip") / "checkpoint"))


@pytest.fixture(scope="module")
def pairs(captioned_folder: Path) -> Prepared:
    captions = load_data(str(captioned_folder), samples=0, seed=0)
    return prepare(captions, range(4), PreprocessConfig.siglip(32), workers=0, on_bad_image="skip")


def layers_of(tower: torch.nn.Module) -> list[str]:
    linears = (name for name, module in tower.named_modules() if isinstance(module, torch.nn.Linear))
    return [name for name in linears if name != PROJECTION]


@torch.no_grad()
def test_what_is_trained_for_is_the_exported_towers_with_every_layer_int8(siglip: Checkpoint):
    pixels, input_ids = torch.randn(3, 3, 32, 32), siglip.tokenize(published.SENTENCES)
    deployed = DeployedClip(siglip.model, siglip.preprocess_config)
    for kind, samples, found in (
        (ExportedImageTower, pixels, deployed.encode_image(pixels)),
        (ExportedTextTower, input_ids, deployed.encode_text(input_ids)),
    ):
        tower = kind(siglip.model).eval()
        round_what_is_stored(tower)
        exact = tower(samples)
        of_bytes = PixelBytes.of(siglip.preprocess_config, 3 * 8 * 8) if kind is ExportedImageTower else None
        with fake_quantized(tower, layers_of(tower), of_bytes):
            expected = torch.cat([tower(sample[None]) for sample in samples])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        assert (exact - expected).abs().max() > 1e-3


def test_gradients_reach_every_parameter_through_int8(siglip: Checkpoint):
    model = copy.deepcopy(siglip.model).train()
    deployed = DeployedClip(model, siglip.preprocess_config)
    images = deployed.encode_image(torch.randn(2, 3, 32, 32))
    texts = deployed.encode_text(siglip.tokenize(published.SENTENCES[:2]))
    (images[0] @ texts[1]).backward()
    unreached = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert unreached == {"log_logit_scale", "logit_bias"}


@torch.no_grad()
def test_equalizing_changes_no_output_and_repairs_the_twin(siglip: Checkpoint, pairs: Prepared):
    twin = outlier_twin(siglip.model)
    pixels, input_ids = torch.randn(4, 3, 32, 32), siglip.tokenize(published.SENTENCES[:4])
    for tower, samples in ((ExportedImageTower(twin).eval(), pixels), (ExportedTextTower(twin).eval(), input_ids)):
        exact = tower(samples)

        def loss(tower: torch.nn.Module = tower, samples: torch.Tensor = samples, exact: torch.Tensor = exact) -> float:
            with fake_quantized(tower, layers_of(tower)):
                return 1 - (tower(samples) * exact).sum(dim=1).mean().item()

        before = loss()
        assert equalize(pairs_of_tower(tower), lambda tower=tower, samples=samples: tower(samples))
        torch.testing.assert_close(tower(samples), exact, atol=1e-4, rtol=0)
        assert loss() < min(0.5 * before, 0.005)


@torch.no_grad()
def test_a_student_is_equalized_without_changing_it(siglip: Checkpoint, pairs: Prepared):
    student = make_student(siglip, None, siglip, pairs, None)
    equalize_student(student, pairs)
    pixels, input_ids = torch.randn(4, 3, 32, 32), siglip.tokenize(published.SENTENCES[:4])
    changed = student.model.vision.head.probe - siglip.model.vision.head.probe
    assert changed.abs().max() > 0
    torch.testing.assert_close(student.model(pixels, input_ids), siglip.model(pixels, input_ids), atol=1e-3, rtol=0)


def test_layers_are_chosen_of_the_pooling_too(siglip: Checkpoint, pairs: Prepared):
    tower = ExportedImageTower(siglip.model).eval()
    batches = [torch.randn(4, 3, 32, 32)]
    exact = tower(batches[0])
    layers = layers_of(tower)
    assert {"last.scores", "last.value", "last.out"} <= set(layers)
    assert len(choose_float_layers(tower, layers, batches, exact, min_cosine=2.0, at_most=len(layers))) == len(layers)
    assert all(batch.shape[1] == 64 for batch in text_batches(pairs, siglip.tokenizer))


def test_a_smaller_siglip_keeps_its_width_and_drops_layers_and_units(siglip: Checkpoint, pairs: Prepared):
    config = siglip.model.config
    assert count_parameters(config) == sum(parameter.numel() for parameter in siglip.model.parameters())
    student = make_student(siglip, Share(0.8, 1.0, 1.0), siglip, pairs, None).model
    assert student.config.vision.num_attention_heads == config.vision.num_attention_heads
    assert student.config.vision.intermediate_size < config.vision.intermediate_size
    found = sum(parameter.numel() for parameter in student.parameters())
    assert found == count_parameters(student.config) <= 0.8 * count_parameters(config)
    pixels = torch.randn(2, 3, 32, 32)
    cosines = (student.encode_image(pixels) * siglip.model.encode_image(pixels)).sum(dim=1)
    assert cosines.min() > 0.7  # inherited, not drawn


@torch.no_grad()
def test_all_of_a_siglip_is_itself(siglip: Checkpoint, pairs: Prepared):
    whole = make_student(siglip, propose(siglip.model.config, 1.0), siglip, pairs, None)
    for name, tensor in siglip.model.state_dict().items():
        assert torch.equal(whole.model.state_dict()[name], tensor), name


def test_fewer_heads_of_a_siglip_image_tower_are_refused(siglip: Checkpoint, pairs: Prepared):
    tower = TowerPlan(layers=(0, 1), num_attention_heads=2, intermediate_size=80)
    plan = ShrinkPlan(vision=tower, text=replace(tower, num_attention_heads=4), vocabulary="whole")
    with pytest.raises(ConfigError, match="all 4, since its width is that of the embeddings"):
        make_student(siglip, plan, siglip, pairs, None)
