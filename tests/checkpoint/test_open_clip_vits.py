"""open_clip's ViTs that are not CLIP's own, against values that open_clip gave, see tests/oracles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, timm
from edgeclip.config import PreprocessConfig
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.errors import CheckpointError, TokenizerError
from edgeclip.export.towers import ExportedTextTower, exported_image_tower
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.shrink.plan import count_parameters
from edgeclip.tokenizer_files import load_tokenizer
from tests import mobileclip, published
from tests.oracles.weights import lively, pixels, texts_with_ends

RECORDED = json.loads((Path(__file__).parents[1] / "oracles" / "open_clip_vits.json").read_text())["models"]
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3}


def narrow(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let the name of a model's image tower stand for one as narrow and shallow as was recorded."""
    sizes = RECORDED[name]["narrower"]
    tower = RECORDED[name]["model_cfg"]["vision_cfg"].get("timm_model_name")
    if tower in timm._CLASS_TOKEN:
        patch_size, width, _, heads, _, eps = timm._CLASS_TOKEN[tower]
        width, heads = sizes.get("embed_dim", width), sizes.get("num_heads", heads)
        own = (patch_size, width, sizes["depth"], heads, int(width * sizes["mlp_ratio"]), eps)
        patch.setitem(timm._CLASS_TOKEN, tower, own)
    elif tower is not None:
        patch.setitem(timm._SIZES, "so400m", (64, 2, 4, 64))


@pytest.fixture(params=RECORDED)
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    narrow(monkeypatch, request.param)
    folder, model = tmp_path / request.param, RECORDED[request.param]
    folder.mkdir()
    save_file(
        lively({key: tuple(shape) for key, shape in model["shapes"].items()}), folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": model["model_cfg"], "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    learn_vocabulary(mobileclip.WORDS, 600, 16).save(folder)
    return folder


@pytest.fixture
def checkpoint(folder: Path) -> Checkpoint:
    return load_checkpoint(folder)


@torch.no_grad()
def test_embeddings_are_those_of_open_clip(folder: Path, checkpoint: Checkpoint):
    recorded = RECORDED[folder.name]
    for found, expected in (
        (checkpoint.model.encode_image(pixels(56)), recorded["image_embeds"]),
        (checkpoint.model.encode_text(texts_with_ends(16, 600)), recorded["text_embeds"]),
    ):
        torch.testing.assert_close(found[:, :6], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("folder", ["MobileCLIP-B"], indirect=True)
def test_mobileclips_own_preprocessing_is_no_clips(folder: Path):
    config = json.loads((folder / "open_clip_config.json").read_text())
    del config["preprocess_cfg"]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).preprocess_config == PreprocessConfig.mobileclip(56)


@pytest.mark.parametrize("folder", ["ViT-L-14-CLIPA"], indirect=True)
def test_clipa_s_texts_end_in_padding(folder: Path):
    published.wordpieces().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", **published.BERT_CONFIG})
    )
    texts = [text for text in published.HARD + published.thousand() if not {"\ufb01", "\uff26"} & set(text)]  # no ftfy
    theirs = AutoTokenizer.from_pretrained(folder)
    options = {"max_length": 16, "padding": "max_length", "truncation": True}
    ids = np.array(theirs([" ".join(text.split()) for text in texts], **options)["input_ids"])
    ids[ids == theirs.sep_token_id] = 0  # as open_clip's HFTokenizer does where it has strip_sep_token
    checkpoint = load_checkpoint(folder)
    np.testing.assert_array_equal(checkpoint.tokenizer(texts), ids)
    checkpoint.tokenizer.save(folder)
    np.testing.assert_array_equal(load_tokenizer(folder, 16, fixed_length=True)(texts), ids)


@pytest.mark.parametrize("folder", ["ViT-L-14-CLIPA"], indirect=True)
def test_clipa_s_texts_need_a_vocabulary_of_bert_s(folder: Path):
    with pytest.raises(TokenizerError, match=r"without \[CLS\], or .*; expected BERT's uncased vocabulary; copy"):
        load_checkpoint(folder).require_tokenizer()


@torch.no_grad()
def test_the_exported_towers_are_the_model(checkpoint: Checkpoint):
    images, texts, model = pixels(56), texts_with_ends(16, 600), checkpoint.model
    torch.testing.assert_close(exported_image_tower(model)(images), model.encode_image(images), atol=5e-6, rtol=0)
    torch.testing.assert_close(ExportedTextTower(model).eval()(texts), model.encode_text(texts), atol=5e-6, rtol=0)


@torch.no_grad()
def test_int8_as_it_is_trained_for_points_where_the_model_does(checkpoint: Checkpoint):
    images, model = torch.rand(2, 3, 56, 56) * 2 - 1, checkpoint.model
    deployed = DeployedClip(model, checkpoint.preprocess_config)
    assert (deployed.encode_image(images) * model.encode_image(images)).sum(dim=1).min() > 0.99
    texts = texts_with_ends(16, 600)
    assert (deployed.encode_text(texts) * model.encode_text(texts)).sum(dim=1).min() > 0.99


def test_what_is_saved_is_what_is_loaded(checkpoint: Checkpoint, tmp_path: Path):
    tokenizer = learn_vocabulary(mobileclip.WORDS, 600, 16)
    save_checkpoint(checkpoint.model, checkpoint.preprocess_config, tokenizer, tmp_path / "saved")
    again = load_checkpoint(tmp_path / "saved")
    assert again.config == checkpoint.config
    assert count_parameters(again.config) == sum(parameter.numel() for parameter in again.model.parameters())
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("folder", "part"),
    [("EVA01-g-14", "q_bias"), ("ViT-M-16-alt", "0.ls_1.gamma"), ("ViT-M-16-alt", ".gamma")],
    indirect=["folder"],
)
def test_a_part_that_is_missing_is_named(folder: Path, part: str):
    state = load_file(folder / "open_clip_model.safetensors")
    left = {name: tensor for name, tensor in state.items() if not name.endswith(part)}
    save_file(left, folder / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing|unknown"):
        load_checkpoint(folder)
