"""`edgeclip distill` from a recipe to a bundle, at mini size; also killed, resumed, and told something wrong."""

import json
import shutil
import signal
import subprocess
import sys
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeclip as package
from edgeclip.checkpoint import load_checkpoint
from edgeclip.compress.distill_data import load_split
from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.config import PreprocessConfig
from edgeclip.export import export_bundle
from edgeclip.quantize.deployed import DeployedClip
from tests.e2e.step_by_step import untraced
from tests.e2e.training_alone import ready_made, train_alone
from tests.once import MadeOnce

RECIPE = """
samples = 19
qad_share = 0.5
[shrink]
fractions = [0.8, 0.7]
vocabulary = "captions"
[loss]
feature = 1.0
affinity = 1.0
[train]
epochs = 10
batch_size = 4
lr = 1e-3
checkpoint_every = 2
chunk_size = 3
[cache]
augmentations = 2
"""
PLAN = """
[shrink.plan]
vocabulary = "whole"
[shrink.plan.vision]
layers = [0, 1, 2]
num_attention_heads = 2
intermediate_size = 48
[shrink.plan.text]
layers = [0]
num_attention_heads = 3
intermediate_size = 48
"""


@pytest.fixture(scope="session")
def command(mini_checkpoint: Path, captioned_folder: Path, once: MadeOnce) -> list[object]:
    recipe = once("recipe", lambda folder: (folder / "mine.toml").write_text(RECIPE)) / "mine.toml"
    options = ("--workers", 0, "--threads", 1, "--repeats", 3)
    return ["distill", mini_checkpoint, "--recipe", recipe, "--data", captioned_folder, *options]


@pytest.fixture(scope="session")
def run(edgeclip, command: list[object], once: MadeOnce) -> Path:
    """The folder of a whole run, beside what it printed."""

    def distill(folder: Path) -> None:
        done = edgeclip(*command, "--out", folder / "out")
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    return once("distilled", distill) / "out"


@pytest.fixture
def training_alone(monkeypatch: pytest.MonkeyPatch, bundles: dict[str, Path]) -> Path:
    """In this process students are trained, but neither exported nor timed; the bundle that stands for theirs."""
    train_alone(monkeypatch, bundles["int8"])
    return bundles["int8"]


def test_rows_report_and_files(run: Path):
    out = run
    results = json.loads((out / "results.json").read_text())
    assert [(row["name"], row["variant"], row["precision"]) for row in results["rows"]] == [
        ("TEACHER", "fp32 bundle", "fp32"),
        ("STUDENT", "post-training int8", "int8"),
        ("DISTILLED", "mine, int8", "int8"),
    ]
    teacher, student, distilled = results["rows"]
    assert distilled["params"] < 0.7 * teacher["params"] == 0.7 * student["params"]
    assert distilled["size_mb"] < student["size_mb"] < teacher["size_mb"]
    assert distilled["peak_rss_mb"] < 200  # a process without torch
    assert {name: len(losses) for name, losses in results["losses"].items()} == {"stage-1": 40, "stage-2": 40}
    assert (results["data"]["train"], results["data"]["validation"]) == (16, 5)
    assert "feature 1, affinity 1; 50 % of each stage as int8 computes" in (out / "report.html").read_text()
    assert "DISTILLED is " in (out.parent / "printed.txt").read_text()
    assert sorted(path.name for path in out.iterdir()) == [
        *("bundle", "cache", "checkpoint", "report.html", "results.json", "state")
    ]
    assert not list(out.rglob("*.part"))


@torch.no_grad()
def test_the_bundle_computes_what_was_trained(run: Path, captioned_folder: Path):
    student, clip = load_checkpoint(run / "checkpoint"), package.load(run / "bundle", threads=1)
    assert clip.bundle.manifest.float_layers == []
    assert clip.bundle.manifest.card.pairs == 5
    deployed = DeployedClip(student.model, student.preprocess_config)
    for index in range(6):
        image, text = captioned_folder / "images" / f"{index:03}.jpg", f"the {index}th picture"
        # A value at the border of two levels may fall either way.
        expected = deployed.encode_image(student.preprocess(image)[None])[0]
        np.testing.assert_allclose(clip.encode_image([image])[0], expected, atol=2e-3)
        expected = deployed.encode_text(student.tokenize([text]))[0]
        np.testing.assert_allclose(clip.encode_text([text])[0], expected, atol=2e-3)


def weights(out: Path) -> bytes:
    return (out / "checkpoint" / "model.safetensors").read_bytes()


def test_killed_in_the_cache_and_in_training_it_still_ends_with_the_same_weights(
    run: Path, stop, edgeclip_here, training_alone: Path, command: list[object], tmp_path: Path, monkeypatch
):
    out = tmp_path / "cut"
    started = [*command, "--out", out]
    embed, accept = "edgeclip.distill.teacher:encode_images", "edgeclip.distill.state:TrainState.accept"
    cache, first, second = (out / name for name in ("cache", "state/stage-1.pt", "state/stage-2.pt"))
    code, _ = stop(*started, after=embed, when=cache.is_dir, sign=signal.SIGKILL)
    assert code == -signal.SIGKILL
    code, _ = stop(*started, "--resume", after=accept, when=first.is_file, sign=signal.SIGKILL)
    assert code == -signal.SIGKILL
    code, errors = stop(*started, "--resume", after=accept, when=second.is_file, sign=signal.SIGINT)
    assert code == 130
    assert errors.strip().splitlines()[-1].startswith("edgeclip: interrupted")
    assert not (out / "checkpoint").exists()
    (out / "results.json").write_text("of an earlier run, with another checkpoint")

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeclip.compress.experiment.measured_rows", interrupt)
    assert edgeclip_here(*started, "--resume").returncode == 130
    assert (out / "bundle").is_dir()  # they are replaced together, when training and export are done
    assert weights(out) == weights(run)
    assert not (out / "results.json").exists()


def trained(out: Path) -> dict[str, torch.Tensor]:
    """Without the biases of keys: they change nothing, and their gradient is rounding alone, which Adam enlarges."""
    state = load_checkpoint(out / "checkpoint").model.state_dict()
    for name, tensor in state.items():
        if name.endswith("qkv.bias"):
            tensor.chunk(3)[1].zero_()
    return state


def test_two_processes_end_with_the_student_of_one(
    edgeclip_here, training_alone: Path, command: list[object], tmp_path: Path
):
    """From its cache, with embeddings gathered from both, by way of torchrun; in float, which has no borders."""
    recipe = tmp_path / "float.toml"
    changes = {"qad_share = 0.5": "qad_share = 0.0", "epochs = 10": "epochs = 2", "lr = 1e-3": "lr = 2e-4"}
    recipe.write_text(reduce(lambda text, change: text.replace(*change), changes.items(), RECIPE))
    arguments = [*command[:3], recipe, *command[4:], "--out"]
    done = edgeclip_here(*arguments, tmp_path / "one")
    assert done.returncode == 0, done.stderr
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    started = [*torchrun, "-m", "tests.e2e.training_alone", training_alone, *arguments, tmp_path / "two"]
    root = Path(__file__).parents[2]
    subprocess.run([*map(str, started)], env=untraced(), cwd=root, check=True, capture_output=True)
    torch.testing.assert_close(trained(tmp_path / "two"), trained(tmp_path / "one"), atol=2e-5, rtol=0)
    losses = [json.loads((tmp_path / name / "results.json").read_text())["losses"] for name in ("two", "one")]
    for stage, values in losses[1].items():
        assert losses[0][stage] == pytest.approx(values, rel=1e-4)
        assert values[0] - values[-1] > 1e-3  # it did learn


def test_photographs_with_captions_teach_too(
    edgeclip_here, training_alone: Path, command: list[object], flickr: Path, tmp_path: Path, monkeypatch
):
    def export(checkpoint: object, out: Path, *samples: object, teacher: object = None, **options: object) -> None:
        """The student alone."""
        if teacher:
            export_bundle(checkpoint, out, *samples, teacher=teacher, **options)
        else:
            ready_made(training_alone)(checkpoint, out)

    monkeypatch.setattr("edgeclip.compress.experiment.export_bundle", export)
    (tmp_path / "short.toml").write_text(RECIPE.replace("epochs = 10", "epochs = 1"))
    options = ["--data", flickr, "--pairs", 20, *command[6:]]
    done = edgeclip_here(*command[:3], tmp_path / "short.toml", *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["data"]["train"], results["data"]["validation"]) == (19, 20)
    assert package.load(tmp_path / "out" / "bundle").encode_text(["a dog runs"]).shape == (1, 16)


MISTAKES = {
    "unknown key": (RECIPE + "colour = 1\n", "colour"),
    "larger": (RECIPE[: RECIPE.index("[shrink]")] + PLAN + RECIPE[RECIPE.index("[loss]") :], "vision layer 2"),
    "layers": (
        RECIPE.replace("chunk_size = 3\n", "").replace(
            "affinity = 1.0", "hidden_state = 1.0\nvision_layers = [[9, 1]]"
        ),
        "vision_layers with the pair [9, 1]",
    ),
    "fuse": (RECIPE + "\n[fuse]\nschedule = '9x1'\n", "9x1 for 4 patches"),
    "second stage": (RECIPE.replace("[0.8, 0.7]", "[0.8, 0.05]"), "a text tower of"),
    "not a number of steps": (RECIPE.replace("epochs = 10", f"epochs = {10**18}"), "epochs 1000000000000000000"),
    "brackets": (RECIPE + "colour = " + "[" * 5000, "wrong.toml: "),
    "batch": (RECIPE.replace("batch_size = 4", "batch_size = 20"), "batch size 20 for 16"),
    "not finite": (RECIPE.replace("lr = 1e-3", "lr = 1e30\nmax_grad_norm = 1e12"), "lower the learning rate"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_recipe_is_one_line(mistake, command: list[object], tmp_path: Path, name: str):
    text, message = MISTAKES[name]
    (tmp_path / "wrong.toml").write_text(text)
    last = mistake(*command[:3], tmp_path / "wrong.toml", *command[4:], "--out", tmp_path / "out")
    assert message in last
    assert not (tmp_path / "out" / "checkpoint").exists()
    assert (tmp_path / "out" / "cache" / "index.json").exists() == (name == "not finite")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", 20], "24 images, 5 to measure and 3 to calibrate on, for --samples 20"),
        (["--recipe", "tenth"], "--recipe tenth; expected qad, half, quarter, eighth"),
        (["--pairs", 1], "--pairs 1"),
        (["--threads", 0], "--threads 0"),
    ],
)
def test_a_mistaken_option_is_one_line(
    mistake, command: list[object], tmp_path: Path, options: list[object], message: str
):
    assert message in mistake(*command, *options, "--out", tmp_path / "out")


@pytest.mark.parametrize("name", ["results.json", "edgeclip.json"])
def test_what_another_command_left_is_not_replaced(mistake, command: list[object], tmp_path: Path, name: str):
    (tmp_path / name).write_text("{}")
    assert f"{name} without the" in mistake(*command, "--out", tmp_path)


def test_a_run_whose_cache_was_removed_goes_on(
    run: Path, edgeclip_here, mistake, training_alone: Path, command: list[object], tmp_path: Path
):
    """As the message about a damaged one tells to do."""
    out = Path(shutil.copytree(run, tmp_path / "out"))
    (out / "cache" / "shard-00000.safetensors").write_bytes(b"")
    assert f"remove {out / 'cache'}" in mistake(*command, "--out", out, "--resume")
    shutil.rmtree(out / "cache")
    done = edgeclip_here(*command, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(run)


@pytest.mark.parametrize(
    ("name", "message"), [("checkpoint", "holds more than a checkpoint: thesis.txt"), ("bundle", "which is no bundle")]
)
def test_what_is_in_the_way_is_not_replaced(mistake, command: list[object], tmp_path: Path, name: str, message: str):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    assert message in mistake(*command, "--out", tmp_path)
    assert (tmp_path / name / "thesis.txt").is_file()


def test_the_teacher_is_not_replaced_by_its_student(
    mistake, command: list[object], mini_checkpoint: Path, tmp_path: Path
):
    """As `edgeclip train --out X` leaves it, when `distill X/checkpoint --out X` follows."""
    shutil.copytree(mini_checkpoint, tmp_path / "checkpoint")
    before = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()
    assert "checkpoint, which is the teacher" in mistake(
        "distill", tmp_path / "checkpoint", *command[2:], "--out", tmp_path
    )
    assert "checkpoint without the " in mistake(*command, "--out", tmp_path)
    reproduce = ["reproduce", "--model", tmp_path / "better" / "checkpoint", "--with-better", "--out", tmp_path]
    assert "checkpoint, which is the teacher" in mistake(*reproduce)
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() == before


def test_broken_images_are_left_out_and_counted(
    edgeclip_here, training_alone: Path, command: list[object], captioned_folder: Path, tmp_path: Path
):
    """Every third of them: of a batch of 2 often all, which is no reason to stop."""
    data = tmp_path / "data"
    shutil.copytree(captioned_folder, data)
    for index in range(0, 24, 3):
        (data / "images" / f"{index:03}.jpg").write_bytes(b"rubbish")
    recipe = RECIPE.replace("batch_size = 4", "batch_size = 2").replace("epochs = 10", "epochs = 1")
    (tmp_path / "mine.toml").write_text(recipe)
    arguments = [*command[:3], tmp_path / "mine.toml", "--data", data, *command[6:], "--out", tmp_path / "out"]
    done = edgeclip_here(*arguments)
    assert done.returncode == 0, done.stderr
    counted = json.loads((tmp_path / "out" / "results.json").read_text())["data"]
    assert counted["train"] + counted["validation"] + 1 == 16  # and of 3 to calibrate on, one
    assert sorted(bad[:3] for bad in counted["bad_images"]) == [f"{index:03}" for index in range(0, 24, 3)]
    assert "left out: " in done.stderr


def test_a_broken_image_ends_it_where_it_should(mistake, command: list[object], captioned_folder: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(captioned_folder, data)
    settings = DistillSettings(model="m", recipe="r", data=str(data), workers=0, threads=1)
    later = load_split(settings, 19, PreprocessConfig.clip(32)).training[10].name
    (data / "images" / later).write_bytes(b"rubbish")
    last = mistake(*command[:4], "--data", data, *command[6:], "--out", tmp_path / "out", "--on-bad-image", "fail")
    assert later in last
    assert "use --on-bad-image skip" in last


def test_a_cache_of_something_else_or_damaged_is_refused(mistake, run: Path, command: list[object], tmp_path: Path):
    (tmp_path / "cache").mkdir()
    for file in (run / "cache").iterdir():
        (tmp_path / "cache" / file.name).write_bytes(file.read_bytes())
    assert "a cache with another data and another seed" in mistake(*command, "--out", tmp_path, "--seed", 1)
    shard = tmp_path / "cache" / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert "shard-00000.safetensors, which was changed" in mistake(*command, "--out", tmp_path)


def test_the_state_of_another_recipe_is_refused(mistake, run: Path, command: list[object], tmp_path: Path):
    out = shutil.copytree(run, tmp_path / "out")
    (tmp_path / "other.toml").write_text(
        RECIPE.replace("lr = 1e-3", "lr = 1e-3\nbeta2 = 0.9").replace("affinity = 1.0", "affinity = 2.0")
    )
    last = mistake(*command[:3], tmp_path / "other.toml", *command[4:], "--out", out, "--resume")
    assert "stage-1.pt of a run with another config and another recipe" in last
