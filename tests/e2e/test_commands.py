"""The other commands, and what a user reads after a mistake."""

import json
import signal
from pathlib import Path

import pytest

from edgeclip.checkpoint import load_checkpoint

RECIPE = """
data = "builtin:tabletop"
samples = 24
seed = 0
vocabulary_images = 24
[model]
projection_dim = 16
[model.vision]
image_size = 32
patch_size = 16
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
hidden_act = "gelu"
layer_norm_eps = 1e-5
[model.text]
vocab_size = 560
context_length = 32
eos_token_id = 559
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
hidden_act = "gelu"
layer_norm_eps = 1e-5
[preprocess]
shortest_edge = 32
crop_size = [32, 32]
[train]
epochs = {epochs}
batch_size = 8
lr = 1e-3
checkpoint_every = 2
"""


def test_version_and_help(edgeclip):
    assert edgeclip("--version").stdout.startswith("edgeclip ")
    help_ = edgeclip("--help").stdout
    assert all(command in help_ for command in ("reproduce", "evaluate", "inspect", "train"))


def test_inspect_and_evaluate_a_checkpoint(edgeclip, edgeclip_here, mini_checkpoint: Path, captioned_folder: Path):
    text = edgeclip_here("inspect", mini_checkpoint).stdout
    assert "Hugging Face, safetensors" in text
    assert "2 layers of width 32" in text
    parts = json.loads(edgeclip_here("inspect", mini_checkpoint, "--json").stdout)["parts"]
    assert sum(part["parameters"] for part in parts) == sum(
        p.numel() for p in load_checkpoint(mini_checkpoint).model.parameters()
    )
    done = edgeclip("evaluate", mini_checkpoint, "--data", captioned_folder, "--samples", 10, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "text to image" in done.stdout


def test_all_rows_of_a_table_are_measured_or_told_of(
    edgeclip_here, mistake, mini_checkpoint: Path, captioned_folder: Path, tmp_path: Path
):
    captions = [f"picture {n}" for n in range(20)]
    captions[3], captions[7] = '"Stop" it says', ""
    names = ["missing.jpg", *(f"{n:03d}.jpg" for n in range(1, 20))]
    (tmp_path / "images").symlink_to(captioned_folder / "images")
    rows = [f"{name}\t{caption}" for name, caption in zip(names, captions, strict=True)]
    (tmp_path / "captions.tsv").write_text("\n".join(["image\tcaption", *rows]))
    command = ["evaluate", mini_checkpoint, "--samples", 19, "--workers", 0, "--json", "--data"]
    done = edgeclip_here(*command, tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["images"], [name.split(":")[0] for name in result["bad_images"]]) == (18, ["missing.jpg"])
    assert "20 rows read, 19 kept; left out: 1 without a caption (first: line 9)" in done.stderr
    assert "1 of 19 images are not there (first: missing.jpg)" in done.stderr
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *(row.replace("\t", ",") for row in rows)]))
    assert "captions.csv, line 5 " in mistake(*command, tmp_path)


def test_training_interrupted_by_ctrl_c_resumes_to_the_same_weights(edgeclip_here, stop, tmp_path: Path):
    (tmp_path / "recipe.toml").write_text(RECIPE.format(epochs=2))  # of three steps each
    command = ["train", tmp_path / "recipe.toml", "--workers", 1, "--threads", 1]
    whole = edgeclip_here(*command, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    state = tmp_path / "cut" / "state.pt"
    accept = "edgeclip.distill.state:TrainState.accept"
    code, errors = stop(*command, "--out", tmp_path / "cut", after=accept, when=state.is_file, sign=signal.SIGINT)
    assert code == 130, errors
    assert errors.strip().splitlines()[-1].startswith("edgeclip: interrupted")
    assert "Traceback" not in errors
    assert not (tmp_path / "cut" / "checkpoint").exists()

    resumed = edgeclip_here(*command, "--out", tmp_path / "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    weights = [(tmp_path / run / "checkpoint" / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "openai/clip-vit-base-patch32"], "connect once"),
        (["evaluate", "{mini}", "--colour"], "--colour"),
        (["evaluate", "{mini}", "--data", "{folder}", "--samples", "24", "--on-bad-image", "fail"], "005.jpg"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(
    edgeclip,
    mini_checkpoint: Path,
    folder_with_a_broken_image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    """In processes of their own; many more mistakes are in tests/cli."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    done = edgeclip(*(part.format(mini=mini_checkpoint, folder=folder_with_a_broken_image) for part in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgeclip: ")
    assert message in last
