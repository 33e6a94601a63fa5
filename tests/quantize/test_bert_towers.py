"""Text towers of BERT's kind in int8 as they are trained for: what is deployed, equalized, and made a student of."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import Prepared, prepare
from edgeclip.distill.make_student import Share, equalize_student, make_student
from edgeclip.export.int8 import HEAD
from edgeclip.export.rewrites import scaled_inputs
from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.export.stored import round_what_is_stored
from edgeclip.export.tower_pairs import pair_inputs_of_tower, pairs_of_tower
from edgeclip.export.towers import ExportedTextTower
from edgeclip.model import Clip
from edgeclip.model.layers import Block
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.sensitivity import choose_float_layers, fake_quantized
from edgeclip.shrink.keep_words import keep_words
from edgeclip.shrink.plan import count_parameters, propose
from tests import published


def _joined(folder: Path) -> Path | str:
    """DistilBERT and the mean of its tokens."""
    published.write_metaclip2(folder / "image")
    published.write_sentence_transformers(folder / "text", bias=True)
    return f"{folder / 'image'}+{folder / 'text'}"


def _two_layers(folder: Path) -> Checkpoint:
    """The same with a projection of two layers, as open_clip's."""
    checkpoint = load_checkpoint(_joined(folder))
    config = checkpoint.config
    bert = replace(config.text.bert, projection_units=56, projection_bias=False)
    torch.manual_seed(0)
    model = Clip(replace(config, text=replace(config.text, bert=bert))).eval()
    shared = {k: v for k, v in checkpoint.model.state_dict().items() if not k.startswith("text.projection")}
    model.load_state_dict(shared, strict=False)
    return Checkpoint("two layers", "", "", model, checkpoint.preprocess_config, checkpoint.tokenizer)


MAKE = {
    "chinese clip": lambda folder: load_checkpoint(published.write_chinese_clip(folder)),
    "dual encoder": lambda folder: load_checkpoint(published.write_dual_encoder(folder)),
    "distilbert": lambda folder: load_checkpoint(_joined(folder)),
    "two layers": _two_layers,
}


@pytest.fixture(scope="module", params=MAKE)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return MAKE[request.param](tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def pairs(captioned_folder: Path) -> Prepared:
    captions = load_data(str(captioned_folder), samples=0, seed=0)
    return prepare(captions, range(4), PreprocessConfig.clip(32), workers=0, on_bad_image="skip")


def layers_of(tower: torch.nn.Module) -> list[str]:
    linears = (name for name, module in tower.named_modules() if isinstance(module, torch.nn.Linear))
    return [name for name in linears if name not in HEAD]


def with_scales(tower: ExportedTextTower) -> ExportedTextTower:
    for block in (*tower.blocks, tower.last):
        if isinstance(block, Block | PooledBlock):
            assert scaled_inputs.rewrite(block) == 2
    return tower


@torch.no_grad()
def test_what_is_trained_for_is_the_exported_tower_with_every_layer_int8(checkpoint: Checkpoint):
    """Padded in one batch, as in training; one by one without padding, as on a device."""
    deployed = DeployedClip(checkpoint.model, checkpoint.preprocess_config)
    found = deployed.encode_text(checkpoint.tokenize(published.SENTENCES))
    tower = ExportedTextTower(checkpoint.model).eval()
    alone = [torch.tensor([ids]) for ids in checkpoint.tokenizer.token_ids(published.SENTENCES)]
    exact = torch.cat([tower(ids) for ids in alone])
    round_what_is_stored(tower)
    with fake_quantized(tower, layers_of(tower)):
        expected = torch.cat([tower(ids) for ids in alone])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (exact - expected).abs().max() > 1e-4


def test_gradients_reach_every_parameter_through_int8(checkpoint: Checkpoint):
    model = copy.deepcopy(checkpoint.model).train()
    deployed = DeployedClip(model, checkpoint.preprocess_config)
    images = deployed.encode_image(torch.randn(2, 3, 32, 32))
    texts = deployed.encode_text(checkpoint.tokenize(published.SENTENCES[:2]))
    (images[0] @ texts[1]).backward()
    unreached = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert unreached == {"log_logit_scale"}


@torch.no_grad()
def test_scaling_equalizing_and_pairing_change_no_output(checkpoint: Checkpoint):
    tower = with_scales(ExportedTextTower(outlier_twin(checkpoint.model)).eval())
    input_ids = checkpoint.tokenize(published.SENTENCES)
    exact = checkpoint.model.encode_text(input_ids)
    torch.testing.assert_close(tower(input_ids), exact, atol=1e-4, rtol=0)  # the twin is the model
    chosen = equalize(pairs_of_tower(tower), lambda: tower(input_ids))
    assert any("values" in name for name in chosen)
    pair_inputs_of_tower(tower)
    torch.testing.assert_close(tower(input_ids), exact, atol=1e-4, rtol=0)


@torch.no_grad()
def test_scales_repair_channels_that_are_large_in_the_residual_stream(checkpoint: Checkpoint):
    """Published BERTs have them, and no weight of a normalisation can take their size: the stream reads it too."""
    model, large = copy.deepcopy(checkpoint.model), torch.tensor([5, 9, 40])
    norm = model.text.embedding_norm
    for block in model.text.transformer.blocks:
        for reader, following in ((block.attention.qkv, block.norm1), (block.mlp.fc1, block.norm2)):
            norm.weight[large] *= 30
            norm.bias[large] *= 30
            reader.weight[:, large] /= 30
            norm = following
    tower = with_scales(ExportedTextTower(model).eval())
    input_ids = [torch.tensor([ids]) for ids in checkpoint.tokenizer.token_ids(published.SENTENCES)]
    exact = torch.cat([tower(ids) for ids in input_ids])

    def loss() -> float:
        with fake_quantized(tower, layers_of(tower)):
            error = torch.cat([tower(ids) for ids in input_ids]) - exact
        return (error.square().sum() / (exact - exact.mean(dim=0)).square().sum()).item()  # of what tells texts apart

    before = loss()
    chosen = equalize(pairs_of_tower(tower), lambda: [tower(ids) for ids in input_ids])
    assert any("norm" in name for name in chosen)
    assert loss() < 0.1 * before


@torch.no_grad()
def test_a_student_is_equalized_without_changing_it(checkpoint: Checkpoint, pairs: Prepared):
    student = make_student(checkpoint, None, checkpoint, pairs, None)
    equalize_student(student, pairs)
    pixels, input_ids = torch.randn(4, 3, 32, 32), checkpoint.tokenize(published.SENTENCES[:4])
    found, expected = student.model(pixels, input_ids), checkpoint.model(pixels, input_ids)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_any_layer_may_stay_in_float(checkpoint: Checkpoint):
    tower = ExportedTextTower(checkpoint.model).eval()
    batches = [torch.tensor([ids]) for ids in checkpoint.tokenizer.token_ids(published.SENTENCES[:3])]
    exact = torch.cat([tower(batch) for batch in batches]).detach()
    layers = layers_of(tower)
    assert len(choose_float_layers(tower, layers, batches, exact, min_cosine=2.0, at_most=len(layers))) == len(layers)


def test_a_smaller_student_inherits(checkpoint: Checkpoint, pairs: Prepared):
    config = checkpoint.config
    assert count_parameters(config) == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    student = make_student(checkpoint, Share(0.75, 1.0, 1.0), checkpoint, pairs, None).model
    found = sum(parameter.numel() for parameter in student.parameters())
    assert found == count_parameters(student.config) <= 0.75 * count_parameters(config)
    input_ids = checkpoint.tokenize(published.SENTENCES[:4])
    cosines = (student.encode_text(input_ids) * checkpoint.model.encode_text(input_ids)).sum(dim=1)
    assert cosines.mean() > 0.6  # inherited, not drawn


@torch.no_grad()
def test_all_of_it_is_itself(checkpoint: Checkpoint, pairs: Prepared):
    whole = make_student(checkpoint, propose(checkpoint.config, 1.0), checkpoint, pairs, None)
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(whole.model.state_dict()[name], tensor), name


@torch.no_grad()
def test_the_rewritten_tower_is_the_model_at_any_length(checkpoint: Checkpoint):
    tower = ExportedTextTower(checkpoint.model).eval()
    padded = checkpoint.tokenize(published.SENTENCES)
    expected = checkpoint.model.encode_text(padded)
    torch.testing.assert_close(tower(padded), expected, atol=2e-6, rtol=0)
    for ids, row in zip(checkpoint.tokenizer.token_ids(published.SENTENCES), expected, strict=True):
        torch.testing.assert_close(tower(torch.tensor([ids]))[0], row, atol=2e-6, rtol=0)


@torch.no_grad()
def test_kept_words_encode_as_before(checkpoint: Checkpoint, pairs: Prepared):
    kept = published.SENTENCES[:6]
    small = keep_words(checkpoint, kept)
    assert small.config.text.vocab_size < checkpoint.config.text.vocab_size
    np.testing.assert_allclose(small.encode_text(kept), checkpoint.encode_text(kept), atol=1e-6)
    assert small.tokenizer.pad_token_id == small.config.text.bert.pad_token_id
    student = make_student(checkpoint, Share(0.9, 1.0, 1.0), checkpoint, pairs, kept)
    assert student.tokenizer.pad_token_id == student.config.text.bert.pad_token_id
    assert student.encode_text(kept[:1]).shape == (1, 48)
