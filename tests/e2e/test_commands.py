"""The other commands, and what a user reads after a mistake."""

import json
import os
import signal
import subprocess
import sys
import time
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


def test_inspect_and_evaluate_a_checkpoint(edgeclip, mini_checkpoint: Path, captioned_folder: Path):
    text = edgeclip("inspect", mini_checkpoint).stdout
    assert "Hugging Face, safetensors" in text
    assert "2 layers of width 32" in text
    parts = json.loads(edgeclip("inspect", mini_checkpoint, "--json").stdout)["parts"]
    assert sum(part["parameters"] for part in parts) == sum(
        p.numel() for p in load_checkpoint(mini_checkpoint).model.parameters()
    )
    done = edgeclip("evaluate", mini_checkpoint, "--data", captioned_folder, "--samples", 10, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "text to image" in done.stdout


def test_training_interrupted_by_ctrl_c_resumes_to_the_same_weights(edgeclip, tmp_path: Path):
    (tmp_path / "recipe.toml").write_text(RECIPE.format(epochs=40))
    command = ["train", str(tmp_path / "recipe.toml"), "--workers", "1", "--threads", "1"]
    whole = edgeclip(*command, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    interrupted = subprocess.Popen(
        [sys.executable, "-m", "edgeclip.cli.main", *command, "--out", str(tmp_path / "cut")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "state.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(interrupted.pid, signal.SIGINT)
    _, errors = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, errors
    assert errors.strip().splitlines()[-1].startswith("edgeclip: interrupted")
    assert "Traceback" not in errors
    assert not (tmp_path / "cut" / "checkpoint").exists()

    resumed = edgeclip(*command, "--out", tmp_path / "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    weights = [(tmp_path / run / "checkpoint" / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]


def mistakes(mini: Path, folder: Path, tmp: Path) -> dict[str, tuple[list[object], str]]:
    empty = tmp / "empty"
    empty.mkdir(exist_ok=True)
    table = tmp / "table"
    table.mkdir(exist_ok=True)
    (table / "captions.csv").write_text("a,b\n1,2\n")
    truncated = tmp / "truncated"
    truncated.mkdir(exist_ok=True)
    for file in mini.iterdir():
        (truncated / file.name).write_bytes(file.read_bytes()[: 5000 if file.suffix == ".safetensors" else None])
    other = tmp / "other"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text('{"model_type": "bert"}')
    broken = tmp / "broken.jpg"
    broken.write_bytes(b"no image")
    reproduce = ["reproduce", "--out", tmp / "out", "--model", mini, "--data", folder, "--workers", 0]
    return {
        "unknown model": (["evaluate", tmp / "nothing"], "unknown model"),
        "unknown data set": (["evaluate", mini, "--data", tmp / "nothing"], "unknown data set"),
        "no network": (["evaluate", "openai/clip-vit-base-patch32"], "connect once"),
        "truncated safetensors": (["evaluate", truncated], "cannot be read"),
        "another architecture": (["inspect", other], "'bert'"),
        "alpha": ([*reproduce, "--alpha", 1.5], "--alpha 1.5; expected 0 to 1; use 1"),
        "sweep": ([*reproduce, "--sweep-alpha", "a,b"], "--sweep-alpha"),
        "engine": ([*reproduce, "--engine", "tpu"], "--engine 'tpu'"),
        "too many samples": ([*reproduce, "--samples", 25], "--samples 25 of 24"),
        "batch": ([*reproduce, "--samples", 20, "--batch-size", 17], "batch size 17 for"),
        "empty folder": (["evaluate", mini, "--data", empty], "an empty folder"),
        "no columns": (["evaluate", mini, "--data", table], "the columns a, b"),
        "test image": ([*reproduce, "--samples", 20, "--batch-size", 4, "--test-image", broken], "cannot be decoded"),
        "broken image": ([*reproduce, "--samples", 24, "--batch-size", 4, "--on-bad-image", "fail"], "005.jpg"),
        "threads": (["evaluate", mini, "--threads", 100000], "--threads 100000"),
        "seed": ([*reproduce, "--seed", -1], "--seed -1"),
        "no samples": (["evaluate", mini, "--samples", -5], "--samples -5"),
        "a name too long": (["evaluate", mini, "--data", "x" * 5000], "File name too long"),
        "unknown option": (["evaluate", mini, "--colour"], "--colour"),
        "not a number": ([*reproduce, "--samples", "many"], "'--samples'"),
        "missing recipe": (["train", tmp / "none.toml", "--out", tmp / "out"], "none.toml"),
        "nothing to resume": (["train", tmp / "r.toml", "--out", tmp / "out", "--resume"], "--resume"),
        "output is a file": (["train", tmp / "r.toml", "--out", broken], "cannot make the folder"),
    }


NAMES = [
    "unknown model",
    "unknown data set",
    "no network",
    "truncated safetensors",
    "another architecture",
    "alpha",
    "sweep",
    "engine",
    "too many samples",
    "batch",
    "empty folder",
    "no columns",
    "test image",
    "broken image",
    "threads",
    "seed",
    "no samples",
    "a name too long",
    "unknown option",
    "not a number",
    "missing recipe",
    "nothing to resume",
    "output is a file",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_gives_one_line_and_exit_code_2(
    edgeclip,
    mini_checkpoint: Path,
    folder_with_a_broken_image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "r.toml").write_text(RECIPE.format(epochs=1))
    cases = mistakes(mini_checkpoint, folder_with_a_broken_image, tmp_path)
    assert sorted(cases) == sorted(NAMES)
    arguments, message = cases[name]
    done = edgeclip(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgeclip: ")
    assert message in last
    assert not (tmp_path / "out" / "results.json").exists()
