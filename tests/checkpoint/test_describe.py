"""What tensors can't tell is read, asked for, or refused; against transformers and by hand."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from edgeclip.checkpoint import load_checkpoint, openai
from edgeclip.checkpoint.describe import with_activation
from edgeclip.checkpoint.keys import to_theirs
from edgeclip.checkpoint.published import names, published
from edgeclip.config import CLIP_MEAN, ClipConfig
from edgeclip.errors import CheckpointError
from edgeclip.model import Clip
from edgeclip.tokenizer import ClipTokenizer
from tests import published as families
from tests.checkpoint.test_layouts import (
    PIXELS,
    Scriptable,
    as_module,
    copy_of,
    edit_json,
    open_clip_folder,
    openai_style,
)

__all__ = ["openai_style"]


def openai_state(model: Clip) -> dict[str, torch.Tensor]:
    state = to_theirs(model.state_dict(), openai.rules(model.config))
    return {name: tensor.detach() for name, tensor in state.items()}


@pytest.fixture
def training_file(tmp_path: Path, openai_style: Clip) -> Path:
    """epoch_3.pt as open_clip's training writes it, with a NumPy scalar beside the weights."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    state = {f"module.{name}": tensor for name, tensor in openai_state(openai_style).items()}
    kept = {"epoch": 3, "name": "run", "state_dict": state, "best": np.float64(0.5), "optimizer": {"state": {}}}
    torch.save(kept, folder / "epoch_3.pt")
    return folder / "epoch_3.pt"


def test_weights_that_tell_no_activation_are_refused(training_file: Path):
    with pytest.raises(CheckpointError, match=r"of no published architecture; .*give `model_config`"):
        load_checkpoint(training_file)


def model_cfg(config: ClipConfig, **changes: Any) -> dict[str, Any]:
    vision, text = config.vision, config.text
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "head_width": vision.hidden_size // vision.num_attention_heads,
        },
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
        },
        **changes,
    }


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("place", ["beside", "asked", "asked, model alone", "log"])
def test_a_configuration_beside_or_asked_for(
    training_file: Path, openai_style: Clip, tmp_path: Path, quick: bool, place: str, monkeypatch: pytest.MonkeyPatch
):
    config = with_activation(openai_style.config, "quick_gelu" if quick else "gelu")
    model = model_cfg(config, **({"quick_gelu": True} if quick else {}))
    asked, origin = None, "open_clip_config.json"
    if place == "beside":
        whole = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
        (training_file.parent / "open_clip_config.json").write_text(json.dumps(whole))
    elif place == "log":
        monkeypatch.setattr("edgeclip.checkpoint.describe.published", {"mini": with_activation(config, "gelu")}.get)
        log = f"batch_size: 8\nforce_image_size: None\nforce_quick_gelu: {quick}\nmodel: mini\npretrained: \n"
        (training_file.parents[1] / "params.txt").write_text(log)
        origin = "params.txt"
    else:
        origin = "asked.json"
        asked = tmp_path / origin
        asked.write_text(json.dumps(model if "alone" in place else {"model_cfg": model, "preprocess_cfg": {}}))
    checkpoint = load_checkpoint(training_file, model_config=asked)
    assert checkpoint.model.config == config
    assert checkpoint.origins["architecture"] == origin
    expected = Clip(config).eval()
    expected.load_state_dict(openai_style.state_dict())
    with torch.no_grad():
        assert torch.equal(checkpoint.model.encode_image(PIXELS), expected.encode_image(PIXELS))
    assert checkpoint.preprocess_config.std[0] == (0.25 if place == "beside" else pytest.approx(0.26862954))


@pytest.mark.parametrize(
    "line",
    [
        *("model: ViT-B-32\nforce_image_size: 448", "model: ViT-B-32\nimage_mean: (0.5, 0.5, 0.5)"),
        *("model: ViT-B-32\npretrained: openai", "model: RN50", "a: b", ""),
    ],
)
def test_a_training_log_of_something_else_is_refused(training_file: Path, line: str):
    (training_file.parents[1] / "params.txt").write_text(f"{line}\n")
    with pytest.raises(CheckpointError, match="as it is; give `model_config`"):
        load_checkpoint(training_file)


def test_openai_code_has_left_its_mark(tmp_path: Path, openai_style: Clip, caplog: pytest.LogCaptureFixture):
    state = openai_state(openai_style)
    sizes = {"input_resolution": 32, "context_length": 16, "vocab_size": openai_style.config.text.vocab_size}
    torch.save(state | {name: torch.tensor(size) for name, size in sizes.items()}, tmp_path / "constants.pt")
    checkpoint = load_checkpoint(tmp_path / "constants.pt")
    assert checkpoint.model.config == openai_style.config
    assert checkpoint.layout == "OpenAI"
    assert "OpenAI's code" in checkpoint.origins["preprocessing"]
    assert not caplog.records


class QuickGELU(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("act", [QuickGELU, torch.nn.GELU])
def test_classes_in_an_archive_tell_the_activation(tmp_path: Path, openai_style: Clip, act: type[torch.nn.Module]):
    root = as_module(openai_state(openai_style))
    for tower in (root.visual, root):
        for block in tower.transformer.resblocks.children():
            block.mlp.add_module("gelu", act())
    torch.jit.save(torch.jit.script(Scriptable(root)), tmp_path / "archive.pt")
    if act is QuickGELU:
        assert load_checkpoint(tmp_path / "archive.pt").model.config == openai_style.config
    else:  # whose heads nothing tells: the shapes are nobody's
        with pytest.raises(CheckpointError, match="no published architecture"):
            load_checkpoint(tmp_path / "archive.pt")


@pytest.mark.parametrize("name", names())
def test_published_shapes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One architecture for its shapes: it is taken. Two, of different activations: refused, and both are named."""
    from edgeclip.checkpoint.describe import of_itself
    from edgeclip.checkpoint.torch_file import TensorFile

    config = published(name)
    with torch.device("meta"):
        file = TensorFile(openai_state(Clip(config)))
    base = name.removesuffix("-quickgelu")
    if f"{base}-quickgelu" in names():
        with pytest.raises(CheckpointError, match=f"shapes are those of {re.escape(base)} and {re.escape(base)}-quick"):
            of_itself(file, "a.pt")
    else:
        assert of_itself(file, "a.pt").config == config


def test_the_published_table_by_hand():
    """Parameters as their papers and cards have them, in millions."""
    counts = {"ViT-B-32": 151.3, "ViT-B-16": 149.6, "ViT-L-14": 427.6, "ViT-L-14-336": 427.9, "ViT-H-14": 986.1}
    counts |= {"ViT-g-14": 1366.7, "ViT-bigG-14": 2539.6, "ViT-B-16-plus-240": 208.4}
    for name, millions in counts.items():
        with torch.device("meta"):
            total = sum(parameter.numel() for parameter in Clip(published(name)).parameters())
        assert total / 1e6 == pytest.approx(millions, abs=0.06), name
    assert published("ViT-B/32") == published("ViT-B-32-quickgelu")
    assert published("ViT-L/14@336px") == published("ViT-L-14-336-quickgelu")
    assert published("ViT-Z-1") is None


def test_an_unknown_name_lists_those_that_are_known(training_file: Path):
    with pytest.raises(CheckpointError, match=r"give one of ViT-S-32, .*ViT-B-32-quickgelu"):
        load_checkpoint(training_file, model_config="ViT-B32")


def test_a_weights_file_uses_the_configuration_of_its_folder(mini_checkpoint: Path, tmp_path: Path, clip: Clip):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    checkpoint = load_checkpoint(folder / "model.safetensors")
    assert checkpoint.model.config == clip.config
    assert checkpoint.origins["preprocessing"] == "preprocessor_config.json"
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json beside it; give `model_config`"):
        load_checkpoint(folder / "model.safetensors")


def test_the_configuration_of_something_else_in_the_folder(tmp_path: Path, openai_style: Clip):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    state, one = openai_state(openai_style), torch.tensor(1)
    torch.save(state | dict.fromkeys(openai.CONSTANTS, one), tmp_path / "openai.pt")
    assert load_checkpoint(tmp_path / "openai.pt").model.config == openai_style.config
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"of no published architecture; .*give `model_config`"):
        load_checkpoint(tmp_path / "other.pt")


def test_preprocessing_that_nothing_tells_is_said(
    mini_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    (folder / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING, "edgeclip"):
        checkpoint = load_checkpoint(folder)
    assert "CLIP's own preprocessing" in caplog.text
    assert checkpoint.origins["preprocessing"] == "CLIP's own, for want of any"
    assert checkpoint.preprocess_config.mean == CLIP_MEAN


def test_transformers_5_writes_one_file_for_all_processors(mini_checkpoint: Path, tmp_path: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    nested = {"image_processor": processor | {"image_mean": [0.1, 0.2, 0.3]}, "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    assert load_checkpoint(folder).preprocess_config.mean == (0.1, 0.2, 0.3)  # it comes first, as in transformers
    (folder / "preprocessor_config.json").unlink()
    checkpoint = load_checkpoint(folder)
    assert checkpoint.preprocess_config.mean == (0.1, 0.2, 0.3)
    assert checkpoint.origins["preprocessing"] == "processor_config.json"


def test_processors_of_another_kind(mini_checkpoint: Path, tmp_path: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}))
    with pytest.raises(CheckpointError, match="SiglipImageProcessor"):
        load_checkpoint(folder)  # whose defaults of mean and std are others
    edit_json(path, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert load_checkpoint(folder).preprocess_config.crop_size is None
    edit_json(path, image_processor_type="ConvNextImageProcessor")
    with pytest.raises(CheckpointError, match="ConvNextImageProcessor"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"do_pad": True, "pad_size": {"height": 64, "width": 64}}, "with do_pad True"),
        ({"do_flip_channel_order": True}, "with do_flip_channel_order True"),
        ({"size": {"shortest_edge": 32, "longest_edge": 40}}, "with size {'longest_edge': 40"),
        ({"size": {"longest_edge": 32}}, "with size {'longest_edge': 32}"),
        ({"do_pad": False, "size": {"shortest_edge": 32, "longest_edge": None}}, None),
    ],
)
def test_steps_of_preprocessing_that_are_not_clips(
    mini_checkpoint: Path, tmp_path: Path, change: dict[str, Any], reason: str | None
):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    usual = load_checkpoint(folder).preprocess_config
    edit_json(folder / "preprocessor_config.json", **change)
    if reason is None:
        assert load_checkpoint(folder).preprocess_config == usual
        return
    with pytest.raises(CheckpointError, match=re.escape(reason)):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "repeated",
    [
        {"text_config_dict": {"num_attention_heads": 4}},
        {"vision_config_dict": {"hidden_act": "gelu"}},
        {"text_config_dict": {}},
        {"vision_config_dict": None},
    ],
    ids=str,
)
def test_repeated_settings_as_transformers_takes_them(mini_checkpoint: Path, repeated: dict[str, Any]):
    from edgeclip.hf_config import config_from

    raw = json.loads((mini_checkpoint / "config.json").read_text()) | repeated
    theirs = CLIPConfig.from_dict(json.loads(json.dumps(raw)))
    ours = config_from(raw, Path("config.json"))
    for tower, other in ((ours.vision, theirs.vision_config), (ours.text, theirs.text_config)):
        for key in ("hidden_size", "num_attention_heads", "num_hidden_layers", "hidden_act", "layer_norm_eps"):
            assert getattr(tower, key) == getattr(other, key), key


@pytest.mark.parametrize("act", ["gelu_python", "swish", "gelu_fast", "gelu_accurate", "gelu_python_tanh", "gelu_new"])
def test_other_names_of_activations(mini_checkpoint: Path, tmp_path: Path, act: str):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    for tower in ("vision_config", "text_config"):
        config[tower]["hidden_act"] = act
    (folder / "config.json").write_text(json.dumps(config))
    theirs = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=PIXELS)
        expected = getattr(expected, "pooler_output", expected)
        found = load_checkpoint(folder).model.encode_image(PIXELS)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["quantization_config", "auto_map"])
def test_keys_that_change_the_model_are_refused(mini_checkpoint: Path, tmp_path: Path, key: str):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    edit_json(folder / "config.json", **{key: {"a": "b"}})
    with pytest.raises(CheckpointError, match=key):
        load_checkpoint(folder)


HARMLESS = {
    "vision_cfg": {"attentional_pool": False, "patch_dropout": 0.5, "timm_pool": "avg", "ls_init_value": None},
    "text_cfg": {"pad_id": 0, "no_causal_mask": False, "proj_type": "linear", "hf_proj_type": "mlp"},
    "model_cfg": {"output_dict": True, "nonscalar_logit_scale": False, "init_logit_scale": 2.6, "custom_text": False},
}


def test_keys_that_change_nothing(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    path = tmp_path / "a" / "open_clip_config.json"
    config = json.loads(path.read_text())
    for tower in ("vision_cfg", "text_cfg"):
        config["model_cfg"][tower] |= HARMLESS[tower]
    config["model_cfg"] |= HARMLESS["model_cfg"]
    path.write_text(json.dumps(config))
    assert load_checkpoint(tmp_path / "a").model.config == openai_style.config


@pytest.mark.parametrize(
    ("place", "change", "reason"),
    [
        ("vision_cfg", {"layers": [3, 4, 6, 3], "patch_size": None}, "with a ResNet image tower"),
        ("vision_cfg", {"timm_model_name": "vit_base_patch16"}, "timm's 'vit_base_patch16'"),
        ("model_cfg", {"multimodal_cfg": {"width": 8}}, "a text decoder, as CoCa has it"),
        ("text_cfg", {"hf_model_name": "google/mt5-base"}, "'google/mt5-base' as its text tower"),
        ("text_cfg", {"hf_model_name": "roberta-base", "hf_pooler_type": "max_pooler"}, "hf_pooler_type 'max_pooler'"),
        ("text_cfg", {"proj_bias": True}, "proj_bias = True"),
        ("text_cfg", {"pool_type": "first"}, "pool_type = 'first'"),
        ("vision_cfg", {"no_ln_pre": "yes"}, "no_ln_pre = 'yes'"),
        ("vision_cfg", {"pool_type": "avg"}, "pool_type = 'avg', final_ln_after_pool = False in its image tower"),
        ("vision_cfg", {"a new key": 1}, "a new key = 1"),
        ("vision_cfg", {"act_kwargs": {"slope": 1}}, "act_kwargs"),
        ("preprocess_cfg", {"crop": 3}, "preprocess_cfg"),
        ("preprocess_cfg", {"mean": [10**400, 0, 0]}, "three numbers"),
    ],
)
def test_the_reason_of_a_refusal_is_the_true_one(
    tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer, place: str, change: dict[str, Any], reason: str
):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    path = tmp_path / "a" / "open_clip_config.json"
    config = json.loads(path.read_text())
    part = {"model_cfg": config["model_cfg"], "preprocess_cfg": config["preprocess_cfg"]}.get(place)
    (config["model_cfg"][place] if part is None else part).update(change)
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=re.escape(reason)):
        load_checkpoint(tmp_path / "a")


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_mode": "clips"},
        {"tokenizer_kwargs": {"a": 1}},
        {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": "yes"}},
    ],
)
def test_another_tokenizer_leaves_the_image_tower_usable(
    tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer, change: dict[str, Any]
):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    path = tmp_path / "a" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] |= change
    path.write_text(json.dumps(config))
    checkpoint = load_checkpoint(tmp_path / "a")
    with pytest.raises(CheckpointError, match="tokenizer of"):
        checkpoint.encode_text(["a"])


def test_a_tokenizer_of_transformers_is_the_one_beside(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    """As of MetaCLIP 2 in open_clip's layout: white space is made one, and capitals stay."""
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    path = tmp_path / "a" / "open_clip_config.json"
    config = json.loads(path.read_text())
    own = {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2}
    config["model_cfg"]["text_cfg"] |= own
    path.write_text(json.dumps(config))
    pieces = families.pieces(roberta=True)
    pieces.save(str(tmp_path / "a" / "tokenizer.json"))
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps(families.ROBERTA_CONFIG))
    ids = load_checkpoint(tmp_path / "a").tokenizer.token_ids(["a  Cat\tsat"])
    assert ids == [pieces.encode("a Cat sat").ids]


def test_constants_have_to_be_the_usual_ones(tmp_path: Path, mini_checkpoint: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    state = load_file(folder / "model.safetensors")
    state = {name: tensor.clone() for name, tensor in state.items()}
    positions = "text_model.embeddings.position_ids"
    save_file({**state, positions: torch.arange(16)[None]}, folder / "model.safetensors")
    load_checkpoint(folder)
    save_file({**state, positions: torch.arange(16).flip(0)[None].contiguous()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="positions in order"):
        load_checkpoint(folder)


def test_a_mask_that_is_not_causal_is_refused(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    file = tmp_path / "a" / "open_clip_model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}
    causal = torch.full((16, 16), -torch.inf).triu(1)
    save_file({**state, "attn_mask": causal}, file)
    load_checkpoint(tmp_path / "a")
    save_file({**state, "attn_mask": torch.zeros(16, 16)}, file)
    with pytest.raises(CheckpointError, match="causal mask"):
        load_checkpoint(tmp_path / "a")


def test_float8_is_named(tmp_path: Path, mini_checkpoint: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    state = load_file(folder / "model.safetensors")
    state["visual_projection.weight"] = state["visual_projection.weight"].to(torch.float8_e4m3fn)
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"visual_projection\.weight \(torch\.float8_e4m3fn\)"):
        load_checkpoint(folder)


@pytest.mark.parametrize("value", [{"a": [1]}, [], 3, None, "../a.safetensors", "a" * 10_000, ["x"] * 10_000])
def test_shards_of_a_hostile_index(tmp_path: Path, mini_checkpoint: Path, value: object):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"logit_scale": value}}))
    with pytest.raises(CheckpointError, match=r"naming the shard|cannot be read|File name too long|download it again"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("options", "same", "other"),
    [
        ({}, "a red ball", "A Red&nbsp;Ball"),
        ({"clean": "canonicalize"}, "a red ball", "A red, ball!"),
        ({"clean": "lower"}, "a red ball", "A  red&nbsp;ball"),
    ],
    ids=str,
)
def test_open_clip_cleans_texts_as_it_says(
    tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer, options: dict[str, str], same: str, other: str
):
    """Also where the folder brings a tokenizer.json, whose own tokenizer does not clean."""
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    path = tmp_path / "a" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = options
    path.write_text(json.dumps(config))
    tokenize = load_checkpoint(tmp_path / "a").tokenize
    assert torch.equal(tokenize([same]), tokenize([other]))
    assert not np.array_equal(tokenizer([same]), tokenizer([other]))
