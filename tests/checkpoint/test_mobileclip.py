"""MobileCLIP in open_clip's layout: folded as it is loaded, and equal to what open_clip makes of it unfolded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.checkpoint.fastvit import fastvit_tower
from edgeclip.checkpoint.mobileclip import describe
from edgeclip.config import CLIP_MEAN, PreprocessConfig
from edgeclip.errors import CheckpointError, EdgeclipError
from edgeclip.export.export_settings import ExportSettings
from edgeclip.export.run import export
from edgeclip.export.towers import ExportedTextTower
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.shrink.plan import count_parameters
from tests import mobileclip
from tests.oracles.weights import lively, pixels, texts_with_ends

MIXER = "text_encoder.transformer.0.convffn.conv.conv.weight"
S0_TEXT = json.loads((Path(__file__).parents[1] / "oracles" / "mobileclip_s0_text.json").read_text())["models"]

APPLES = "MobileCLIP-S1, Apple's"


@pytest.fixture(params=[name for name in mobileclip.RECORDED if name != APPLES])
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


@pytest.fixture
def apples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file as Apple's code writes it, beside which only the vocabulary lies."""
    mobileclip.narrow(monkeypatch, APPLES)
    mobileclip.write(APPLES, tmp_path)
    state = load_file(tmp_path / "open_clip_model.safetensors")
    for name in ("open_clip_model.safetensors", "open_clip_config.json"):
        (tmp_path / name).unlink()
    monkeypatch.setattr("edgeclip.checkpoint.mobileclip.IMAGE_SIZE", 64)
    monkeypatch.setattr("edgeclip.checkpoint.mobileclip.HEAD_SIZE", 16)
    torch.save(state, tmp_path / "mobileclip_s1.pt")
    return tmp_path / "mobileclip_s1.pt"


@torch.no_grad()
def test_apples_file_tells_all_of_itself(apples: Path):
    checkpoint, recorded = load_checkpoint(apples), mobileclip.RECORDED[APPLES]
    assert checkpoint.layout == "Apple"
    assert checkpoint.preprocess_config == PreprocessConfig.mobileclip(64)
    for found, expected in (
        (checkpoint.model.encode_image(pixels(64)), recorded["image_embeds"]),
        (checkpoint.model.encode_text(texts_with_ends(16, 600)), recorded["text_embeds"]),
    ):
        torch.testing.assert_close(found[:, :6], torch.tensor(expected), atol=1e-5, rtol=0)
    assert checkpoint.tokenizer(["a"])[0, -1] == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda state: state.update({"text_encoder.transformer.0.token_mixer.layer_scale": torch.zeros(1)}),
            r"unknown text\.transformer\.resblocks\.0\.token_mixer\.layer_scale",
        ),
        (lambda state: state.pop("text_encoder.projection_layer"), "another text tower than it has"),
        (lambda state: state.pop("image_encoder.model.head.proj"), "missing visual.trunk.head.fc"),
        (lambda state: state.update({"image_encoder.model.x": torch.zeros(1)}), "unknown visual.trunk.x"),
    ],
)
def test_what_is_not_apples_is_named(change, expected: str, apples: Path):
    state = torch.load(apples)
    change(state)
    torch.save(state, apples)
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(apples)


def as_s0(file: Path, kind: str) -> Path:
    """The same image tower with a text tower as MobileCLIP-S0's, which has convolutions."""
    state = {name: tensor for name, tensor in torch.load(file).items() if not name.startswith("text_encoder.")}
    torch.save(state | lively({name: tuple(shape) for name, shape in S0_TEXT[kind]["shapes"].items()}), file)
    return file


@torch.no_grad()
@pytest.mark.parametrize("kind", S0_TEXT)
def test_s0_s_text_tower_is_that_of_apples_code(apples: Path, kind: str, tmp_path: Path):
    checkpoint, texts = load_checkpoint(as_s0(apples, kind)), texts_with_ends(16, 600)
    found = checkpoint.model.encode_text(texts)
    torch.testing.assert_close(found[:, :6], torch.tensor(S0_TEXT[kind]["text_embeds"]), atol=1e-5, rtol=0)
    assert (checkpoint.config.text.mixer, checkpoint.config.text.num_hidden_layers) == (11, 2)
    assert count_parameters(checkpoint.config) == sum(p.numel() for p in checkpoint.model.parameters())
    exported = ExportedTextTower(checkpoint.model).eval()
    torch.testing.assert_close(exported(texts), found, atol=5e-6, rtol=0)
    int8 = DeployedClip(checkpoint.model, checkpoint.preprocess_config).encode_text(texts)
    assert torch.nn.functional.cosine_similarity(int8, found).min() > 0.995
    save_checkpoint(checkpoint.model, checkpoint.preprocess_config, checkpoint.tokenizer, tmp_path / "saved")
    saved = load_checkpoint(tmp_path / "saved")
    assert saved.config == checkpoint.config
    torch.testing.assert_close(saved.model.encode_text(texts), found, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.update({MIXER: torch.zeros(())}), "misshapen|missing"),
        (lambda state: state.update({MIXER: torch.zeros(64, 1, 1, 12)}), "convolutions over 12 tokens of a text"),
        (lambda state: state.update({MIXER: torch.zeros(64, 1, 1, 99)}), "mixer 99; expected 1 to 16"),
        (
            lambda state: state.pop("text_encoder.transformer.3.layer_scale"),
            r"missing text\..*\.3\.layer_scale",
        ),
        (lambda state: state.pop(MIXER), "missing text.transformer.resblocks.0.attn"),
        (lambda state: [state.pop(n) for n in list(state) if ".transformer.1." in n], "missing|num_hidden_layers"),
    ],
)
def test_s0_s_that_are_damaged(change, expected: str, apples: Path):
    state = torch.load(as_s0(apples, "branches"))
    change(state)
    torch.save(state, apples)
    with pytest.raises(EdgeclipError, match=expected):
        load_checkpoint(apples)


@pytest.mark.slow
def test_s0_s_bundle(apples: Path, tmp_path: Path):
    settings = ExportSettings(model=str(as_s0(apples, "branches")), samples=6, workers=0, threads=1)
    manifest, card = export(settings, tmp_path / "bundle")
    assert manifest.precision == "int8"
    assert card.text_cosine.smallest > 0.995


def test_a_file_of_open_clips_tells_all_of_itself_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    mobileclip.narrow(monkeypatch, "MobileCLIP2-S3")
    monkeypatch.setattr("edgeclip.checkpoint.mobileclip.IMAGE_SIZE", 64)
    monkeypatch.setattr("edgeclip.checkpoint.mobileclip.HEAD_SIZE", 16)
    folder = mobileclip.write("MobileCLIP2-S3", tmp_path)
    said = load_checkpoint(folder)
    (folder / "open_clip_config.json").unlink()
    alone = load_checkpoint(folder / "open_clip_model.safetensors")
    assert alone.config == said.config
    assert alone.preprocess_config == said.preprocess_config


def test_apples_b_sees_a_pixel_around_the_image():
    """Apple's ConvNormAct pads a kernel of 4 by 1, timm's ConvStem by none."""
    state = {
        "text.token_embedding.weight": torch.zeros(9, 64),
        "text.text_projection": torch.zeros(64, 8),
        "text.positional_embedding": torch.zeros(5, 64),
        "text.transformer.resblocks.0.ln_1.weight": torch.zeros(64),
        "visual.trunk.patch_embed.backbone.0.conv.weight": torch.zeros(1),
    }
    apples, timms = (describe(state, "b", is_apples=which).config.vision for which in (True, False))
    assert (apples.stem.padding, apples.layer_norm_eps) == (1, 1e-5)
    assert (timms.stem.padding, timms.layer_norm_eps) == (0, 1e-6)
