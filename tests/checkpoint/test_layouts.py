"""Every published layout gives the same model, and every damage one clear error."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgeclip.checkpoint import load_checkpoint, openai, save_checkpoint
from edgeclip.checkpoint.keys import to_theirs
from edgeclip.config import ClipConfig, Fusion, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError, EdgeclipError, TokenizerError
from edgeclip.hf_preprocess import read_preprocess
from edgeclip.model import Clip
from edgeclip.shrink.fuse_tokens import with_fusion
from edgeclip.tokenizer import ClipTokenizer

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def openai_style(tokenizer: ClipTokenizer) -> Clip:
    """A model for OpenAI's layout: heads of 64 channels, MLPs of 4 times the width, pooled at the highest id."""
    tower = {"num_hidden_layers": 2, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    torch.manual_seed(1)
    return Clip(
        ClipConfig(
            projection_dim=16,
            vision=VisionConfig(
                hidden_size=128, num_attention_heads=2, intermediate_size=512, image_size=32, patch_size=16, **tower
            ),
            text=TextConfig(
                hidden_size=64,
                num_attention_heads=1,
                intermediate_size=256,
                vocab_size=tokenizer.vocab_size,
                context_length=16,
                eos_token_id=None,
                **tower,
            ),
        )
    ).eval()


def assert_same(model: Clip, folder: Path, tolerance: float = 0.0):
    checkpoint = load_checkpoint(folder)
    assert checkpoint.model.config == model.config
    with torch.no_grad():
        torch.testing.assert_close(
            checkpoint.model.encode_image(PIXELS), model.encode_image(PIXELS), atol=tolerance, rtol=0
        )
        input_ids = checkpoint.tokenize(["a red ball", "two blue boxes"])
        torch.testing.assert_close(
            checkpoint.model.encode_text(input_ids), model.encode_text(input_ids), atol=tolerance, rtol=0
        )
    return checkpoint


def test_hugging_face_round_trip(tmp_path: Path, clip: Clip, tokenizer: ClipTokenizer):
    save_checkpoint(clip, PreprocessConfig.clip(32), tokenizer, tmp_path / "a")
    assert assert_same(clip, tmp_path / "a").layout == "Hugging Face, safetensors"
    assert (tmp_path / "a" / "model.safetensors").stat().st_mode & 0o444 == 0o444


def test_a_tower_that_fuses_tokens_says_so_in_its_configuration(tmp_path: Path, clip: Clip, tokenizer: ClipTokenizer):
    fused = with_fusion(clip, Fusion(criterion="mctf", steps=((1, 2),), attention_power=0.05, size_power=0.025))
    save_checkpoint(fused, PreprocessConfig.clip(32), tokenizer, tmp_path / "a")
    assert_same(fused, tmp_path / "a")
    assert transformers.CLIPConfig.from_pretrained(tmp_path / "a").vision_config.num_hidden_layers == 2
    save_checkpoint(clip, PreprocessConfig.clip(32), tokenizer, tmp_path / "b")
    assert "token_fusion" not in (tmp_path / "b" / "config.json").read_text()


def test_hugging_face_half_precision_is_read_as_float32(tmp_path: Path, clip: Clip, tokenizer: ClipTokenizer):
    save_checkpoint(clip, PreprocessConfig.clip(32), tokenizer, tmp_path / "a", dtype=torch.float16)
    checkpoint = assert_same(clip, tmp_path / "a", tolerance=2e-3)
    assert checkpoint.stored_dtype == "float16"
    assert {p.dtype for p in checkpoint.model.parameters()} == {torch.float32}


def test_hugging_face_shards_and_pickle(tmp_path: Path, mini_checkpoint: Path, clip: Clip):
    state = load_file(mini_checkpoint / "model.safetensors")
    for folder in ("shards", "pickle"):
        (tmp_path / folder).mkdir()
        for file in mini_checkpoint.glob("*.json"):
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: state[key] for key in keys}, tmp_path / "shards" / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert assert_same(clip, tmp_path / "shards").layout == "Hugging Face, safetensors shards"

    positions = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}  # as older files have
    torch.save({**state, **positions}, tmp_path / "pickle" / "pytorch_model.bin")
    assert assert_same(clip, tmp_path / "pickle").layout == "Hugging Face, pickle"

    (tmp_path / "shards" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="00002"):
        load_checkpoint(tmp_path / "shards")


def test_openai_state_dict_and_archive(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    tokenizer.save(tmp_path)
    state = to_theirs(openai_style.state_dict(), openai.rules(openai_style.config))
    constants = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(16),
        "vocab_size": torch.tensor(600),
    }
    torch.save({**state, **constants}, tmp_path / "plain.pt")
    assert assert_same(openai_style, tmp_path / "plain.pt").layout == "OpenAI"

    torch.jit.save(torch.jit.script(as_module(state | constants)), tmp_path / "archive.pt")
    assert_same(openai_style, tmp_path / "archive.pt")


def as_module(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A module whose state dict has the given dotted names, as the scripted archives have."""
    root = torch.nn.Module()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_buffer(leaf, tensor)
    root.forward = lambda: None
    return Scriptable(root)


class Scriptable(torch.nn.Module):
    def __init__(self, root: torch.nn.Module):
        super().__init__()
        for name, child in root.named_children():
            self.add_module(name, child)
        for name, buffer in root.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    def forward(self) -> int:
        return 0


def open_clip_folder(
    folder: Path, model: Clip, tokenizer: ClipTokenizer, *, prefix: str = "", **model_cfg: object
) -> None:
    folder.mkdir()
    tokenizer.save(folder)
    vision, text = model.config.vision, model.config.text
    config = {
        "model_cfg": {
            "embed_dim": model.config.projection_dim,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": vision.hidden_size, "patch_size": 16},
            "text_cfg": {
                "context_length": 16,
                "vocab_size": text.vocab_size,
                "width": text.hidden_size,
                "heads": text.num_attention_heads,
                "layers": 2,
            },
            **model_cfg,
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = to_theirs(model.state_dict(), openai.rules(model.config, prefix))
    save_file({name: tensor.detach() for name, tensor in state.items()}, folder / "open_clip_model.safetensors")


def test_a_folder_of_timm_with_the_files_of_open_clip_beside(
    tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer
):
    """As timm/vit_base_patch16_clip_224.openai: config.json and model.safetensors are of the image tower alone."""
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    save_file({"cls_token": torch.zeros(1, 1, 128)}, tmp_path / "a" / "model.safetensors")
    (tmp_path / "a" / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_clip_224"}))
    assert assert_same(openai_style, tmp_path / "a").layout == "open_clip, safetensors"


def test_a_clip_that_was_trained_with_siglips_loss(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    """open_clip's `init_logit_bias` adds a bias to any model, and `nonscalar_logit_scale` an axis to its scale."""
    open_clip_folder(tmp_path / "a", openai_style, tokenizer, init_logit_bias=-10, nonscalar_logit_scale=True)
    weights = load_file(tmp_path / "a" / "open_clip_model.safetensors")
    numbers = {"logit_scale": weights["logit_scale"][None], "logit_bias": torch.tensor([-9.5])}
    save_file(weights | numbers, tmp_path / "a" / "open_clip_model.safetensors")
    checkpoint = load_checkpoint(tmp_path / "a")
    assert checkpoint.logit_bias == -9.5
    assert checkpoint.model.config.sigmoid
    assert checkpoint.model.config.vision.pooling == "class"
    save_checkpoint(checkpoint.model, checkpoint.preprocess_config, checkpoint.tokenizer, tmp_path / "b")
    again = load_checkpoint(tmp_path / "b")
    assert again.model.config == checkpoint.model.config
    assert (again.logit_bias, again.logit_scale) == (-9.5, checkpoint.logit_scale)


def test_open_clip(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    checkpoint = assert_same(openai_style, tmp_path / "a")
    assert checkpoint.layout == "open_clip, safetensors"
    assert checkpoint.preprocess_config.std == (0.25, 0.25, 0.25)


def test_open_clip_custom_text_and_pickle(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer, prefix="text.", custom_text=True)
    file = tmp_path / "a" / "open_clip_model.safetensors"
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in load_file(file).items()}},
        file.with_name("open_clip_pytorch_model.bin"),
    )
    file.unlink()
    assert_same(openai_style, tmp_path / "a")


@pytest.mark.parametrize(
    "change",
    [{"vision_cfg": {"timm_model_name": "vit_base"}}, {"vision_cfg": {"layers": [2, 2, 2, 2]}}, {"custom": 1}],
    ids=["timm tower", "resnet", "unknown key"],
)
def test_open_clip_towers_of_another_kind_are_refused(tmp_path: Path, openai_style: Clip, tokenizer, change: dict):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer, **change)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "a")


def test_gelu_where_open_clip_says_so(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer, quick_gelu=False)
    assert load_checkpoint(tmp_path / "a").model.config.vision.hidden_act == "gelu"


def copy_of(mini_checkpoint: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in mini_checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_surplus_and_misshapen_tensors_are_listed(tmp_path: Path, mini_checkpoint: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    state = load_file(folder / "model.safetensors")
    lost = state.pop("visual_projection.weight")
    save_file({**state, "surprise": lost}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing visual_projection\.weight and unknown surprise"):
        load_checkpoint(folder)
    save_file({**state, "visual_projection.weight": lost[:, :5].contiguous()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"visual_projection\.weight \(16, 5\) not \(16, 32\)"):
        load_checkpoint(folder)


@pytest.mark.parametrize("length", [0, 7, 100, 5000])
def test_truncated_safetensors_and_pickles(tmp_path: Path, mini_checkpoint: Path, length: int):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    weights = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(weights).items()}  # not the file's own memory
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_checkpoint(folder)
    weights.unlink()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read"):
        load_checkpoint(folder)


class Hostile:
    def __reduce__(self):
        return print, ("executed",)


def test_a_hostile_pickle_is_not_executed(tmp_path: Path, mini_checkpoint: Path, capsys: pytest.CaptureFixture):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    (folder / "model.safetensors").unlink()
    torch.save({"a": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    assert "executed" not in capsys.readouterr().out


def test_other_architectures_are_refused(tmp_path: Path, mini_checkpoint: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    edit_json(folder / "config.json", model_type="blip")
    with pytest.raises(
        CheckpointError,
        match="'blip', with a BERT text tower that looks at the image; expected 'clip' or 'metaclip_2' or 'siglip'",
    ):
        load_checkpoint(folder)
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "rn50.pt")
    with pytest.raises(CheckpointError, match="ResNet"):
        load_checkpoint(tmp_path / "rn50.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"without visual\.conv1\.weight"):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"vision_config": 3}),
        ("config.json", {"projection_dim": "wide"}),
        ("config.json", {"projection_dim": -1}),
        ("config.json", {"vision_config": {"hidden_act": ["gelu"]}}),
        ("config.json", {"vision_config": {"hidden_size": [[1]]}}),
        ("config.json", {"vision_config": {"num_hidden_layers": 2**31 - 1}}),
        ("config.json", {"vision_config": {"layer_norm_eps": float("nan")}}),
        ("config.json", {"text_config": {"max_position_embeddings": 0}}),
        ("config.json", {"vision_config": {"token_fusion": 8}}),
        ("config.json", {"vision_config": {"token_fusion": {"criterion": "tome", "steps": [[30, 1]]}}}),
        ("config.json", {"vision_config": {"token_fusion": {"criterion": "pitome", "steps": [[1, 1]]}}}),
        ("config.json", {"text_config": {"token_fusion": {"criterion": "tome", "steps": [[1, 1]]}}}),
        ("preprocessor_config.json", {"resample": 99}),
        ("preprocessor_config.json", {"image_std": [float("nan")] * 3}),
        ("preprocessor_config.json", {"image_std": [10**400, 1, 1]}),
        ("preprocessor_config.json", {"image_mean": [0.5]}),
        ("preprocessor_config.json", {"image_std": [0.0, 1.0, 1.0]}),
        ("preprocessor_config.json", {"crop_size": {"height": 8, "width": 8}}),
        ("preprocessor_config.json", {"size": {"width": 8}}),
    ],
)
def test_malformed_configurations(tmp_path: Path, mini_checkpoint: Path, file: str, change: dict):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    edit_json(folder / file, **change)
    with pytest.raises(EdgeclipError):
        load_checkpoint(folder)


def test_what_isnt_there(tmp_path: Path, mini_checkpoint: Path):
    with pytest.raises(CheckpointError, match="unknown model"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"without config\.json"):
        load_checkpoint(tmp_path)
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="without weights"):
        load_checkpoint(folder)
    folder = copy_of(mini_checkpoint, tmp_path / "b")
    (folder / "tokenizer.json").unlink()
    checkpoint = load_checkpoint(folder)  # the model can be used without
    with pytest.raises(TokenizerError, match="no tokenizer"):
        checkpoint.tokenize(["a"])


@pytest.mark.parametrize("change", [torch.Tensor.char, lambda t: t * float("nan")], ids=["int8", "nan"])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, mini_checkpoint: Path, change):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    name = "visual_projection.weight"
    state = {key: tensor.clone() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state | {name: change(state[name])}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"visual_projection\.weight \(torch\.\w+\) are not finite"):
        load_checkpoint(folder)


@pytest.mark.parametrize("scale", [-1000.0, 1000.0, -8.0, 8.0])
def test_a_logit_scale_that_no_model_has(tmp_path: Path, mini_checkpoint: Path, scale: float):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"logit_scale": torch.tensor(scale)}, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"with the logit_scale {scale:g}; expected the logarithm of a scale from"
    ):
        load_checkpoint(folder)


def test_a_tokenizer_whose_end_of_text_the_model_does_not_pool(tmp_path: Path, mini_checkpoint: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    raw = json.loads((folder / "config.json").read_text())
    raw["text_config"]["eos_token_id"] = 7
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"pools token \d+ of a text, where its tokenizer ends texts with"):
        load_checkpoint(folder).require_tokenizer()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin"])
def test_open_clip_weights_under_other_names(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer, name: str):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    weights = tmp_path / "a" / "open_clip_model.safetensors"
    if name.endswith("bin"):
        torch.save(load_file(weights), tmp_path / "a" / name)
        weights.unlink()
    else:
        weights.rename(weights.with_name(name))
    assert_same(openai_style, tmp_path / "a")


def test_weights_of_another_name_are_named(tmp_path: Path, openai_style: Clip, tokenizer: ClipTokenizer):
    open_clip_folder(tmp_path / "a", openai_style, tokenizer)
    (tmp_path / "a" / "open_clip_model.safetensors").rename(tmp_path / "a" / "epoch_3.pt")
    with pytest.raises(CheckpointError, match=r"without weights; .*give \S*epoch_3\.pt if it holds them"):
        load_checkpoint(tmp_path / "a")
    assert_same(openai_style, tmp_path / "a" / "epoch_3.pt")  # told by its content, not by its name


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither safetensors nor one of PyTorch's formats"),
        (b"<!DOCTYPE html><html>", "neither safetensors nor one of PyTorch's formats"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "what git-lfs leaves in a file's place"),
    ],
)
def test_what_downloads_leave_instead(tmp_path: Path, name: str, content: bytes, reason: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path / name)


def test_weights_decide_where_both_layouts_are_configured(tmp_path: Path, mini_checkpoint: Path, clip: Clip):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    (folder / "open_clip_config.json").write_text("{}")
    assert assert_same(clip, folder).layout == "Hugging Face, safetensors"


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path: Path, mini_checkpoint: Path, clip_vocabulary: Path):
    folder = copy_of(mini_checkpoint, tmp_path / "a")
    checkpoint = load_checkpoint(folder, vocabulary=clip_vocabulary)
    with pytest.raises(CheckpointError, match="49408 tokens"):
        checkpoint.tokenize(["a"])


def test_legacy_preprocessor_files(tmp_path: Path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "crop_size": 32, "resample": 3}))
    assert read_preprocess(tmp_path, 224) == PreprocessConfig.clip(32)
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_preprocess(tmp_path, 224) == PreprocessConfig.clip(224)


def test_the_reports_normalisation(mini_checkpoint: Path):
    checkpoint = load_checkpoint(mini_checkpoint).with_paper_normalization()
    white = checkpoint.preprocess(torch.full((40, 40, 3), 255, dtype=torch.uint8).numpy())
    torch.testing.assert_close(white, torch.ones(3, 32, 32))
