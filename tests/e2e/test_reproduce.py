"""`edgeclip reproduce` from a checkpoint and a folder of pictures to the table."""

import json
from pathlib import Path

import pytest

MINI = ("--samples", 24, "--epochs", 1, "--batch-size", 4, "--workers", 1, "--repeats", 3, "--threads", 1)


@pytest.fixture(scope="module")
def run(edgeclip, mini_checkpoint: Path, folder_with_a_broken_image: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    done = edgeclip(
        *("reproduce", "--model", mini_checkpoint, "--data", folder_with_a_broken_image, "--out", out, *MINI),
        *(
            "--sweep-alpha",
            "0.2,0.8",
            "--test-image",
            folder_with_a_broken_image / "images" / "000.jpg",
            "--normalize",
            "report",
        ),
    )
    assert done.returncode == 0, done.stderr
    return done, out, json.loads((out / "results.json").read_text())


def test_all_rows_are_there(run):
    _, _, results = run
    rows = [(row["name"], row["variant"]) for row in results["rows"]]
    assert rows[0] == ("TEACHER", "fp32")
    assert rows[1] == ("EDGECLIP", "int8 bundle")
    assert rows[2] == ("STUDENT", "int8, qnnpack")
    variants = [variant for name, variant in rows if name == "DISTILLED"]
    assert len(variants) == 3
    assert variants[0] == "int8 then distilled, qnnpack"
    assert variants[2].startswith("distilled then int8")
    assert {row["params"] for row in results["rows"]} == {results["rows"][0]["params"]}


def test_figures_are_plausible(run):
    _, _, results = run
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


def test_the_broken_picture_is_named(run):
    done, _, results = run
    assert results["data"]["pairs"] == 23
    (bad,) = results["data"]["bad_images"]
    assert "005.jpg" in bad
    assert "005.jpg" in done.stdout


def test_the_sweep_and_the_findings(run):
    _, _, results = run
    assert [point["alpha"] for point in results["sweep"]] == [0.2, 0.8]
    findings = results["findings"]
    assert findings["gradients"][0]["reached"] == ["log_logit_scale"]
    assert {engine["engine"] for engine in findings["engines"]} >= {"float", "qnnpack"}


def test_everything_is_written_and_nothing_half(run):
    done, out, _ = run
    assert "report.html" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == ["models", "report.html", "results.json", "state"]
    assert not list(out.rglob("*.part"))


def test_a_student_can_be_evaluated_and_inspected(run, edgeclip, folder_with_a_broken_image: Path):
    _, out, _ = run
    student = out / "models" / "student-int8-qnnpack"
    done = edgeclip(
        "evaluate", student, "--data", folder_with_a_broken_image, "--samples", 24, "--json", "--workers", 0
    )
    assert done.returncode == 0, done.stderr
    evaluation = json.loads(done.stdout)
    assert evaluation["images"] == 23
    assert evaluation["standard"]["captions"] == 46
    done = edgeclip("inspect", student)
    assert done.returncode == 0, done.stderr
    assert "int8       19 layers" in done.stdout
    listed = json.loads(edgeclip("inspect", student, "--json").stdout)
    assert "vision.patch_embedding" in listed["int8_layers"]
    assert "text.token_embedding.weight" in listed["float_tensors"]


def test_a_finished_run_resumes_and_gets_the_better_rows(
    run, edgeclip, mini_checkpoint: Path, folder_with_a_broken_image: Path
):
    _, out, results = run
    done = edgeclip(
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
