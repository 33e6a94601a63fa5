"""The models of the table: which there are, on which engines, and what they leave on disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.data.prepare import Prepared
from edgeclip.quantize.paper import PAPER_ENGINE, available_engines, load_student, read_student
from edgeclip.reproduce import Settings
from edgeclip.reproduce.paper_distillation import DistillData
from edgeclip.reproduce.variants import Paper, Variant

SWEEP = (0.2, 0.8)


@pytest.fixture
def paper(checkpoint: Checkpoint, data: DistillData, tmp_path: Path) -> Paper:
    """One epoch of two steps on each variant."""
    settings = Settings(engine=available_engines()[-1], epochs=1, batch_size=4, threads=1, sweep_alpha=SWEEP)
    return Paper(settings, checkpoint, data, tmp_path / "state", resume=False)


def test_every_model_of_the_table_is_made_and_finished_trainings_are_taken_up(paper: Paper):
    variants, losses, findings = paper.variants()
    fastest = paper.settings.engine
    quick = [] if fastest == PAPER_ENGINE else [("STUDENT", f"int8, {fastest}")]
    assert [(variant.name, variant.variant) for variant in variants] == [
        ("TEACHER", "fp32"),
        ("STUDENT", f"int8, {PAPER_ENGINE}"),
        *quick,
        ("DISTILLED", f"int8 then distilled, {PAPER_ENGINE}"),
        ("DISTILLED", f"int8 then distilled, float projections, {fastest}"),
        ("DISTILLED", f"distilled then int8, {fastest}"),
    ]
    labels = ["int8 then distilled", "int8 then distilled, float projections", "distilled then int8"]
    assert {label: len(values) for label, values in losses.items()} == dict.fromkeys(labels, 2)
    assert [reach.variant for reach in findings.gradients] == labels
    first, projections, whole = findings.gradients
    assert first.reached == ["log_logit_scale"]
    assert first.drift_cosine == 1
    assert len(first.reached) < len(projections.reached) < len(whole.reached) == whole.tensors
    assert whole.drift_cosine < 1
    states = {path.name for path in paper.state_folder.iterdir()}
    assert states == {label.replace(", ", "-").replace(" ", "-") + ".pt" for label in labels}
    assert replace(paper, resume=True).variants()[1] == losses


def test_the_sweep_has_a_point_for_each_alpha(paper: Paper, data: DistillData):
    captions = [(f"picture {word}",) for word in "abcdefgh"]
    points = paper.sweep(Prepared([caption for (caption,) in captions], data.pixels, captions, []))
    assert [point.alpha for point in points] == list(SWEEP)
    assert all(0 <= value <= 100 for point in points for value in (point.i2t_r1, point.t2i_r1))


def test_students_are_kept_and_the_teacher_is_only_lent(checkpoint: Checkpoint, tmp_path: Path):
    teacher = Variant("TEACHER", "fp32", checkpoint.model)
    student = Variant("STUDENT", f"int8, {PAPER_ENGINE}", load_student(checkpoint.model), PAPER_ENGINE)
    models, scratch = tmp_path / "models", tmp_path / "scratch"
    kept, lent = student.save(checkpoint, models, scratch), teacher.save(checkpoint, models, scratch)
    assert [path.name for path in models.iterdir()] == [f"student-int8-{PAPER_ENGINE}"]
    assert (kept.precision, lent.precision) == ("int8", "fp32")
    assert kept.params == lent.params == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert kept.size_mb < lent.size_mb
    assert read_student(kept.source).config == load_checkpoint(lent.source).model.config
