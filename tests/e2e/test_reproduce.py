"""`edgeclip reproduce` from a checkpoint and a folder of pictures to the table."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeclip.checkpoint import Checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples
from tests.e2e.training_alone import Untimed, ready_made
from tests.once import MadeOnce

MINI = ("--samples", 24, "--epochs", 1, "--batch-size", 4, "--workers", 1, "--repeats", 3, "--threads", 1)


@dataclass
class Run:
    """What it wrote, and what it printed."""

    out: Path
    printed: str
    results: dict[str, Any]


@pytest.fixture(scope="session")
def run(edgeclip, mini_checkpoint: Path, folder_with_a_broken_image: Path, once: MadeOnce) -> Run:
    picture = folder_with_a_broken_image / "images" / "000.jpg"

    def reproduce(folder: Path) -> None:
        done = edgeclip(
            *("reproduce", "--model", mini_checkpoint, "--data", folder_with_a_broken_image, "--out", folder / "out"),
            *(*MINI, "--sweep-alpha", "0.2,0.8", "--test-image", picture, "--normalize", "report"),
        )
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    folder = once("reproduced", reproduce)
    results = json.loads((folder / "out" / "results.json").read_text())
    return Run(folder / "out", (folder / "printed.txt").read_text(), results)


def test_all_rows_are_there(run: Run):
    rows = [(row["name"], row["variant"]) for row in run.results["rows"]]
    assert rows[0] == ("TEACHER", "fp32")
    assert rows[1] == ("EDGECLIP", "int8 bundle")
    assert rows[2] == ("STUDENT", "int8, qnnpack")
    variants = [variant for name, variant in rows if name == "DISTILLED"]
    assert len(variants) == 3
    assert variants[0] == "int8 then distilled, qnnpack"
    assert variants[2].startswith("distilled then int8")
    assert {row["params"] for row in run.results["rows"]} == {run.results["rows"][0]["params"]}


def test_figures_are_plausible(run: Run):
    results = run.results
    teacher, *students = results["rows"]
    for row in results["rows"]:
        for direction in ("i2t", "t2i"):
            assert (
                0 <= row[direction]["r1"]["low"] <= row[direction]["r1"]["value"] <= row[direction]["r1"]["high"] <= 100
            )
            assert row[direction]["r1"]["value"] <= row[direction]["r5"]["value"]
        for call in ("image", "text", "i2t", "t2i"):
            assert 0 < row["latency_ms"][call]["p50"] <= row["latency_ms"][call]["p95"]
        assert row["peak_rss_mb"] > 50
    assert all(row["size_mb"] < teacher["size_mb"] for row in students)
    # Distilling the fully quantized student trains the temperature alone and so ranks as before.
    assert (
        results["rows"][2]["i2t"]
        == next(r for r in results["rows"] if r["variant"].startswith("int8 then distilled, qnnpack"))["i2t"]
    )


def test_the_broken_picture_is_named(run: Run):
    assert run.results["data"]["pairs"] == 23
    (bad,) = run.results["data"]["bad_images"]
    assert "005.jpg" in bad
    assert "005.jpg" in run.printed


def test_the_sweep_and_the_findings(run: Run):
    assert [point["alpha"] for point in run.results["sweep"]] == [0.2, 0.8]
    findings = run.results["findings"]
    assert findings["gradients"][0]["reached"] == ["log_logit_scale"]
    assert {engine["engine"] for engine in findings["engines"]} >= {"float", "qnnpack"}


def test_everything_is_written_and_nothing_half(run: Run):
    assert "report.html" in run.printed
    assert sorted(p.name for p in run.out.iterdir()) == ["models", "report.html", "results.json", "state"]
    assert not list(run.out.rglob("*.part"))


def test_a_student_can_be_evaluated_and_inspected(run: Run, edgeclip_here, folder_with_a_broken_image: Path):
    student = run.out / "models" / "student-int8-qnnpack"
    done = edgeclip_here(
        "evaluate", student, "--data", folder_with_a_broken_image, "--samples", 24, "--json", "--workers", 0
    )
    assert done.returncode == 0, done.stderr
    evaluation = json.loads(done.stdout)
    assert evaluation["images"] == 23
    assert evaluation["standard"]["captions"] == 46
    done = edgeclip_here("inspect", student)
    assert done.returncode == 0, done.stderr
    assert "int8       19 layers" in done.stdout
    listed = json.loads(edgeclip_here("inspect", student, "--json").stdout)
    assert "vision.patch_embedding" in listed["int8_layers"]
    assert "text.token_embedding.weight" in listed["float_tensors"]


def test_a_finished_run_resumes_and_gets_the_better_rows(
    run: Run,
    edgeclip_here,
    mini_checkpoint: Path,
    folder_with_a_broken_image: Path,
    bundles: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Of the bundles the teacher's alone is made here, in float: the others' accuracy is not looked at."""

    def export(checkpoint: Checkpoint, out: Path, samples: Samples, *, precision: str, **options: Any) -> object:
        make = export_bundle if precision == "fp32" else ready_made(bundles["int8"])
        return make(checkpoint, out, samples, precision=precision, **options)

    monkeypatch.setattr("edgeclip.reproduce.pipeline.export_bundle", export)
    monkeypatch.setattr("edgeclip.compress.experiment.export_bundle", export)
    monkeypatch.setattr("edgeclip.measure.rows.FreshProcess", Untimed)
    results, out = run.results, shutil.copytree(run.out, tmp_path / "out")
    done = edgeclip_here(
        *("reproduce", "--model", mini_checkpoint, "--data", folder_with_a_broken_image, "--out", out, *MINI),
        *("--normalize", "report", "--resume", "--with-better"),
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((out / "results.json").read_text())
    assert again["losses"].items() > results["losses"].items()
    assert [len(losses) for name, losses in again["losses"].items() if name not in results["losses"]] == [4]
    *old, teacher, student, qad = again["rows"]
    assert [row["variant"] for row in (teacher, student, qad)] == ["fp32 bundle", "post-training int8", "qad, int8"]
    # The same model on the same pairs, run by another engine.
    assert (teacher["i2t"], teacher["caption"]) == (old[0]["i2t"], old[0]["caption"])
