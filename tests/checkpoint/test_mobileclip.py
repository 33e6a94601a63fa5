"""MobileCLIP in open_clip's layout: folded as it is loaded, and equal to what open_clip makes of it unfolded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.checkpoint.fastvit import fastvit_tower
from edgeclip.config import CLIP_MEAN, PreprocessConfig
from edgeclip.errors import CheckpointError
from tests import mobileclip
from tests.oracles.weights import pixels, texts_with_ends

FOLDED = "MobileCLIP-S1, folded"


@pytest.fixture(params=mobileclip.RECORDED)
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    mobileclip.narrow(monkeypatch, request.param)
    return mobileclip.write(request.param, tmp_path / request.param)


@torch.no_grad()
def test_embeddings_are_those_of_open_clip(folder: Path):
    checkpoint, recorded = load_checkpoint(folder), mobileclip.RECORDED[folder.name]
    text = checkpoint.config.text
    for found, expected in (
        (checkpoint.model.encode_image(pixels(64)), recorded["image_embeds"]),
        (checkpoint.model.encode_text(texts_with_ends(text.context_length, 600)), recorded["text_embeds"]),
    ):
        torch.testing.assert_close(found[:, :6], torch.tensor(expected), atol=1e-5, rtol=0)


def test_a_folded_tower_has_one_convolution_where_it_had_four(folder: Path):
    model = load_checkpoint(folder).model
    kinds = [type(module).__name__ for module in model.vision.modules()]
    assert "BatchNorm2d" not in kinds
    has = mobileclip.RECORDED[folder.name]["shapes"]
    stored = sum(torch.Size(shape).numel() for name, shape in has.items() if name.startswith("visual."))
    assert sum(p.numel() for p in model.vision.parameters()) < stored


@torch.no_grad()
def test_every_place_averages_to_the_embedding(folder: Path):
    model = load_checkpoint(folder).model
    pooled, tokens = model.vision.features(pixels(64))
    torch.testing.assert_close(pooled, model.vision(pixels(64)), atol=1e-5, rtol=1e-4)
    assert len(tokens.hidden_states) == len(model.config.vision.convolutions.stages)


def test_texts_are_padded_as_open_clip_pads_them_whatever_the_tokenizer_says(folder: Path):
    """Padding is seen: that of tokenizer_config.json, the end of text, would give another embedding."""
    assert json.loads((folder / "tokenizer_config.json").read_text())["pad_token"] == "<|endoftext|>"
    (ids,) = load_checkpoint(folder).tokenizer(["a red ball"], pad_to_longest=True).tolist()
    assert len(ids) == 16
    assert ids[-1] == 0


def test_images_are_prepared_as_open_clip_says(folder: Path):
    """MobileCLIP2-S3's are normalised as CLIP's; what is written beside the weights wins."""
    expected = PreprocessConfig.mobileclip(64)
    found = load_checkpoint(folder).preprocess_config
    assert found.mean == (CLIP_MEAN if folder.name == "MobileCLIP2-S3" else expected.mean)
    assert (found.resample, found.shortest_edge, found.crop_size) == (2, 64, (64, 64))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).preprocess_config.mean == (0.5, 0.5, 0.5)


@torch.no_grad()
def test_what_is_saved_is_what_is_loaded(folder: Path, tmp_path: Path):
    checkpoint = load_checkpoint(folder)
    save_checkpoint(checkpoint.model, checkpoint.preprocess_config, checkpoint.tokenizer, tmp_path / "saved")
    again = load_checkpoint(tmp_path / "saved")
    assert again.config == checkpoint.config
    assert again.preprocess_config == checkpoint.preprocess_config
    assert torch.equal(again.tokenize(["a red ball"]), checkpoint.tokenize(["a red ball"]))
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_the_published_sizes_are_timms():
    assert fastvit_tower("fastvit_sa12", 256) is None
    tower = fastvit_tower("fastvit_mci4", 256)
    assert (tower.hidden_size, tower.num_hidden_layers, tower.num_patches) == (2048, 46, 16)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.pop("visual.trunk.stem.0.conv_scale.conv.weight"), "missing visual.trunk.stem.0.conv_sc"),
        (lambda state: state["visual.trunk.stem.0.conv_kxk.0.bn.running_var"].fill_(-1), "vision.stem.weight"),
        (lambda state: state.update({"visual.trunk.stem.3.weight": torch.zeros(1)}), "unknown visual.trunk.stem.3"),
    ],
)
def test_what_cannot_be_folded_is_named(change, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    mobileclip.narrow(monkeypatch, "MobileCLIP-S1")
    weights = mobileclip.write("MobileCLIP-S1", tmp_path) / "open_clip_model.safetensors"
    state = load_file(weights)
    change(state)
    save_file(state, weights)
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(tmp_path)
