"""What a user reads after a mistake: one line that says what was given, what was expected, and what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "tabletop-teacher.toml"


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
        "nothing to resume": (["train", RECIPE, "--out", tmp / "out", "--resume"], "--resume"),
        "output is a file": (["train", RECIPE, "--out", broken], "cannot make the folder"),
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
def test_a_mistake_is_one_line(
    mistake,
    mini_checkpoint: Path,
    folder_with_a_broken_image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cases = mistakes(mini_checkpoint, folder_with_a_broken_image, tmp_path)
    assert sorted(cases) == sorted(NAMES)
    arguments, message = cases[name]
    assert message in mistake(*arguments)
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("command", "extra"),
    [(("serve", "builtin:tabletop"), "serve"), (("mcp", "--db", "a.db"), "mcp")],
    ids=["serve", "mcp"],
)
def test_the_extra_that_is_named_brings_all_that_the_command_needs(command: tuple[str, ...], extra: str):
    blocked = "import sys; sys.modules.update(dict.fromkeys(['fastapi', 'starlette', 'uvicorn', 'anyio', 'mcp']))"
    run = f"{blocked}; from edgeclip.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", run, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"expected the {extra} extra; pip install 'edgeclip[{extra}]'\n")
