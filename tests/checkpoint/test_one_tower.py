"""Text towers and image towers alone, joined to others, against transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import AutoTokenizer

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.checkpoint.load import load_towers
from edgeclip.errors import CheckpointError, EdgeclipError
from tests import published

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))

SIXTEEN = {**published.PIECES_CONFIG, "model_max_length": 16}


def edited(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A checkpoint of both towers, whose embeddings have 48 numbers."""
    return published.write_metaclip2(tmp_path / "image")


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    published.write_sentence_transformers(tmp_path / "text")
    return tmp_path / "text"


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_a_tower_of_sentence_transformers_joins_a_clip(image_folder: Path, tmp_path: Path, bias: bool):
    theirs = published.write_sentence_transformers(tmp_path / "text", bias=bias)
    joined, image = load_checkpoint(f"{image_folder}+{tmp_path / 'text'}"), load_checkpoint(image_folder)
    # as sentence_transformers.SentenceTransformer.encode does
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "text")
    features = tokenizer(published.HARD, padding=True, truncation=True, max_length=40, return_tensors="pt")
    mask_BT1 = features["attention_mask"][..., None].float()
    states_BTD = theirs(**{key: features[key] for key in ("input_ids", "attention_mask")}).last_hidden_state
    dense = torch.load(tmp_path / "text" / "2_Dense" / "pytorch_model.bin")
    mean_BD = (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1e-9)
    expected = mean_BD @ dense["linear.weight"].T + dense.get("linear.bias", 0)
    found = torch.from_numpy(joined.encode_text(published.HARD))
    torch.testing.assert_close(found, normalize(expected, dim=-1), atol=1e-5, rtol=0)
    assert torch.equal(joined.model.encode_image(PIXELS), image.model.encode_image(PIXELS))
    assert joined.logit_scale == image.logit_scale
    assert joined.config.text.context_length == 40  # max_seq_length, not the 60 positions
    save_checkpoint(joined.model, joined.preprocess_config, joined.tokenizer, tmp_path / "saved")
    saved = load_checkpoint(tmp_path / "saved")
    assert saved.config == joined.config
    torch.testing.assert_close(torch.from_numpy(saved.encode_text(published.HARD)), found, atol=1e-6, rtol=0)


@torch.no_grad()
def test_both_towers_of_transformers_join_again(tmp_path: Path):
    vision, text = published.clip_vision(), published.clip_text()
    published.write(vision, published.pieces(roberta=True), tmp_path / "a", tokenizer_class="")
    published.write(text, published.pieces(), tmp_path / "b", tokenizer_class="", **published.PIECES_CONFIG)
    joined = load_checkpoint(f"{tmp_path / 'a'}+{tmp_path / 'b'}")
    input_ids = joined.tokenize(published.SENTENCES)
    expected = normalize(vision(PIXELS).image_embeds, dim=-1)
    torch.testing.assert_close(joined.model.encode_image(PIXELS), expected, atol=1e-5, rtol=0)
    expected = normalize(text(input_ids).text_embeds, dim=-1)
    torch.testing.assert_close(joined.model.encode_text(input_ids), expected, atol=1e-5, rtol=0)
    assert joined.logit_scale == pytest.approx(100)


def siglip_towers(folder: Path) -> tuple[Path, Path]:
    published.write(published.siglip_vision(), published.pieces(), folder / "a", tokenizer_class="")
    published.write(
        published.siglip_text(), published.pieces(), folder / "b", tokenizer_class="SiglipTokenizer", **SIXTEEN
    )
    return folder / "a", folder / "b"


@torch.no_grad()
@pytest.mark.parametrize("prefixed", [False, True])  # as transformers 4 wrote them
def test_siglip_s_towers_alone(tmp_path: Path, prefixed: bool):
    folders = siglip_towers(tmp_path)
    for folder, tower in zip(folders, ("vision_model", "text_model"), strict=True):
        if prefixed:
            weights = load_file(folder / "model.safetensors")
            save_file({f"{tower}.{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    image, text = map(load_towers, folders)
    expected = published.siglip_vision()(PIXELS).pooler_output
    torch.testing.assert_close(image.vision(PIXELS), expected, atol=1e-5, rtol=0)
    input_ids = torch.from_numpy(text.tokenizer(published.SENTENCES))
    expected = published.siglip_text()(input_ids).pooler_output
    torch.testing.assert_close(text.text(input_ids), expected, atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match="neither of which has a logit scale and bias; expected the whole model"):
        load_checkpoint("+".join(map(str, folders)))
    whole = published.write_siglip(tmp_path / "whole")
    assert load_checkpoint(f"{whole}+{folders[1]}").logit_bias == load_checkpoint(whole).logit_bias
    published.write(published.clip_vision(), published.pieces(), tmp_path / "clip", tokenizer_class="")
    weights = load_file(folders[1] / "model.safetensors")
    heads = {name: tensor[:48].clone() for name, tensor in weights.items() if "head." in name}
    save_file(weights | heads, folders[1] / "model.safetensors")
    edited(folders[1] / "config.json", lambda c: c.update(projection_size=48))
    with pytest.raises(CheckpointError, match="CLIP's image tower and SigLIP's text tower"):
        load_checkpoint(f"{tmp_path / 'clip'}+{folders[1]}")


def test_siglips_that_take_images_of_any_shape(tmp_path: Path):
    image, _ = siglip_towers(tmp_path)
    edited(image / "config.json", lambda c: (c.pop("image_size"), c.update(model_type="siglip2_vision_model")))
    with pytest.raises(CheckpointError, match="a NaFlex checkpoint, which takes images of any shape"):
        load_towers(image)


def test_clip_s_towers_without_a_projection(tmp_path: Path):
    for kind, model in (("Vision", published.clip_vision()), ("Text", published.clip_text())):
        folder = published.write(model, published.pieces(), tmp_path / kind, tokenizer_class="")
        weights = load_file(folder / "model.safetensors")
        save_file({k: v for k, v in weights.items() if "projection" not in k}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=f"a CLIP{kind}Model, without its projection; expected a CLIP{kind}M"):
            load_towers(folder)


def test_one_tower_is_inspected(tmp_path: Path, text_folder: Path, edgeclip_here: Callable[..., CompletedProcess[str]]):
    image, text = siglip_towers(tmp_path)
    model = published.siglip_vision()
    told = json.loads(edgeclip_here("inspect", image, "--json").stdout)
    assert sum(part["parameters"] for part in told["parts"]) == sum(p.numel() for p in model.parameters())
    assert (told["config"]["text"], told["logit_scale"]) == (None, None)
    for folder in (text, text_folder):
        printed = edgeclip_here("inspect", folder).stdout
        assert "one tower alone" in printed
        assert "\nimage " not in printed


def test_the_clip_of_sentence_transformers_is_in_a_folder_of_it(image_folder: Path, tmp_path: Path):
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    shutil.copytree(image_folder, tmp_path / "st" / "0_CLIPModel")
    (tmp_path / "st" / "modules.json").write_text(json.dumps([module]))
    assert load_checkpoint(tmp_path / "st").config == load_checkpoint(image_folder).config


def test_one_tower_alone_says_how_to_join_it(text_folder: Path):
    with pytest.raises(CheckpointError, match=r"a text tower alone; expected both towers; give IMAGE\+.*text"):
        load_checkpoint(text_folder)


def test_towers_in_the_wrong_order(image_folder: Path, text_folder: Path):
    with pytest.raises(CheckpointError, match=r"text is a text tower alone; expected an image tower before the \+"):
        load_checkpoint(f"{text_folder}+{image_folder}")


def test_a_folder_with_a_plus_in_its_name_is_one(image_folder: Path, tmp_path: Path):
    image_folder.rename(tmp_path / "a+b")
    (tmp_path / "a").mkdir()
    assert load_checkpoint(tmp_path / "a+b").config.projection_dim == 48


def test_widths_that_do_not_fit(text_folder: Path, tmp_path: Path):
    published.write_siglip(tmp_path / "siglip")
    with pytest.raises(CheckpointError, match="embeddings of 64 for images and 48 for texts"):
        load_checkpoint(f"{tmp_path / 'siglip'}+{text_folder}")


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("1_Pooling/config.json", lambda c: c.update(pooling_mode_max_tokens=True), "the pooling .*max_tokens"),
        ("1_Pooling/config.json", lambda c: c.update(pooling_mode_mean_tokens=False), "the pooling of none"),
        ("1_Pooling/config.json", lambda c: c.update(pooling_mode="weightedmean"), "the pooling 'weightedmean'"),
        ("2_Dense/config.json", lambda c: c.update(activation_function="torch.nn.Tanh"), "the activation Tanh"),
        ("2_Dense/config.json", lambda c: c.update(in_features=32), "in_features 32; expected Identity, of 64"),
        ("2_Dense/config.json", lambda c: c.update(out_features=40), r"linear|weight \(48, 64\); expected"),
        ("config.json", lambda c: c.update(model_type="mpnet"), "the text tower 'mpnet'"),
        ("config.json", lambda c: c.update(dim=32), "in_features 64; expected Identity, of 32"),
        ("sentence_bert_config.json", lambda c: c.update(do_lower_case=True), "do_lower_case True"),
    ],
)
def test_what_no_rule_knows_is_told_in_a_line(
    image_folder: Path, text_folder: Path, file: str, change: Callable[[dict], object], expected: str
):
    edited(text_folder / file, change)
    with pytest.raises(EdgeclipError, match=expected) as raised:
        load_checkpoint(f"{image_folder}+{text_folder}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ([], "without modules"),
        ([{"path": "../x", "type": "a.Transformer"}], "naming the folder '../x'"),
        ([{"path": "", "type": "a.Transformer"}, {"path": "", "type": "a.LSTM"}], "the modules Transformer, LSTM"),
        ({"path": ""}, "cannot be read"),
    ],
)
def test_other_lists_of_modules(image_folder: Path, text_folder: Path, modules: object, expected: str):
    (text_folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(f"{image_folder}+{text_folder}")


def test_a_layer_of_another_shape(image_folder: Path, text_folder: Path):
    (text_folder / "2_Dense" / "pytorch_model.bin").unlink()
    save_file({"linear.weight": torch.randn(48, 32)}, text_folder / "2_Dense" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"weight \(48, 32\); expected weight \(48, 64\)"):
        load_checkpoint(f"{image_folder}+{text_folder}")
