from pathlib import Path

import numpy as np
import pytest
import torch

from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import RunFiles
from edgeclip.errors import TrainingError
from edgeclip.model import Clip
from edgeclip.model.encode import encode_images
from edgeclip.quantize.paper import available_engines, load_student
from edgeclip.reproduce.paper_distillation import DistillData, PaperLoss, distill_as_paper, gradients

LOSS = PaperLoss(alpha=0.3, temperature=1.0)
TRAIN = TrainConfig(epochs=2, batch_size=4, lr=1e-3)


def test_a_fully_quantized_student_trains_its_temperature_alone(clip: Clip, data: DistillData):
    student = load_student(clip)
    assert list(gradients(student, data, np.arange(4), LOSS)) == ["log_logit_scale"]
    before = {name: p.clone() for name, p in student.named_parameters()}
    images = encode_images(student, data.pixels, data.preprocess, batch_size=1)
    losses = distill_as_paper(student, data, LOSS, TRAIN, seed=0)
    assert len(losses) == 4
    changed = [name for name, p in student.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["log_logit_scale"]
    np.testing.assert_array_equal(images, encode_images(student, data.pixels, data.preprocess, batch_size=1))


def test_with_float_projections_only_the_residual_stream_is_trained(clip: Clip, data: DistillData):
    student = load_student(clip, float_layers=("vision.projection", "text.projection"))
    reached = gradients(student, data, np.arange(4), LOSS)
    assert "vision.position_embedding" in reached
    assert "vision.projection.weight" in reached
    assert not [name for name in reached if "blocks" in name]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("engine", available_engines())
@pytest.mark.slow
def test_a_resumed_int8_student_stays_on_its_engine_and_ends_the_same(
    clip: Clip, data: DistillData, tmp_path: Path, engine: str
):
    train = TrainConfig(epochs=3, batch_size=4, lr=1e-3, checkpoint_every=2)

    def student() -> Clip:
        return load_student(clip, engine=engine, float_layers=("vision.projection", "text.projection"))

    def stop(step: int, loss: float) -> None:
        if step == 3:
            raise KilledError

    whole, interrupted, resumed = student(), student(), student()
    losses = distill_as_paper(whole, data, LOSS, train, seed=0)
    with pytest.raises(KilledError):
        distill_as_paper(interrupted, data, LOSS, train, seed=0, files=RunFiles(tmp_path / "s.pt"), on_step=stop)
    files = RunFiles(tmp_path / "s.pt", resume=True)
    assert distill_as_paper(resumed, data, LOSS, train, seed=0, files=files) == losses
    embeds = [encode_images(model, data.pixels, data.preprocess, batch_size=1) for model in (whole, resumed)]
    np.testing.assert_array_equal(*embeds)
    for other in ({"seed": 1}, {"settings": PaperLoss(0.9, 1.0)}):
        arguments = {"settings": LOSS, "seed": 0, **other}
        with pytest.raises(TrainingError, match=r"another (seed|alpha)"):
            distill_as_paper(student(), data, train=train, files=files, **arguments)


def test_a_float_student_is_trained_whole(clip: Clip, data: DistillData):
    student = load_student(clip, quantized=False)
    assert len(gradients(student, data, np.arange(8), LOSS)) == len(list(student.parameters()))
    losses = distill_as_paper(student, data, LOSS, TrainConfig(epochs=30, batch_size=8, lr=1e-3), seed=0)
    assert losses[-1] < 0.7 * losses[0]


def test_at_alpha_1_a_perfect_student_has_no_loss(clip: Clip, data: DistillData):
    losses = distill_as_paper(load_student(clip, quantized=False), data, PaperLoss(1.0, 1.0), TRAIN, seed=0)
    assert losses[0] == pytest.approx(0, abs=1e-4)
