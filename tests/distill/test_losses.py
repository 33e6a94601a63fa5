import math

import pytest
import torch

from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.reproduce.paper_loss import paper_loss

STUDENT = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
TEACHER = torch.tensor([[1.0, 0.0], [0.5, 1.5]])


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(map(math.exp, row)))
    return [value - total for value in row]


def kl(teacher: list[float], student: list[float]) -> float:
    t, s = log_softmax(teacher), log_softmax(student)
    return sum(math.exp(a) * (a - b) for a, b in zip(t, s, strict=True))


def test_contrastive_by_hand():
    rows = -(log_softmax([2.0, 0.0])[0] + log_softmax([0.0, 1.0])[1]) / 2
    assert contrastive_loss(STUDENT).item() == pytest.approx(rows)  # symmetric matrix: both directions alike


def test_contrastive_limits():
    assert contrastive_loss(100 * torch.eye(5)).item() == pytest.approx(0, abs=1e-6)
    assert contrastive_loss(torch.zeros(8, 8)).item() == pytest.approx(math.log(8))


def test_report_loss_by_hand():
    images = (kl([1.0, 0.0], [2.0, 0.0]) + kl([0.5, 1.5], [0.0, 1.0])) / 2
    texts = (kl([1.0, 0.5], [2.0, 0.0]) + kl([0.0, 1.5], [0.0, 1.0])) / 2
    hard = contrastive_loss(STUDENT).item()
    expected = 0.3 * (images + texts) / 2 + 0.7 * hard
    assert paper_loss(STUDENT, TEACHER, alpha=0.3).item() == pytest.approx(expected, rel=1e-5)


def test_report_loss_limits():
    assert paper_loss(TEACHER, TEACHER, alpha=1.0).item() == pytest.approx(0, abs=1e-6)
    assert paper_loss(STUDENT, TEACHER, alpha=0.0).item() == pytest.approx(contrastive_loss(STUDENT).item())


def test_temperature_keeps_the_size_of_small_differences():
    """tau^2 cancels the 1 / tau^2 of the softened divergence, so that the limit of large tau is finite and not 0."""
    teacher = TEACHER.double()
    near = teacher + 0.01 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    hot, hotter = (paper_loss(near, teacher, alpha=1.0, temperature=tau).item() for tau in (50.0, 100.0))
    assert hot > 0
    assert hotter == pytest.approx(hot, rel=0.1)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_gradients(alpha: float):
    student = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: paper_loss(z, teacher, alpha=alpha, temperature=2.0), (student,))
    assert torch.autograd.gradcheck(contrastive_loss, (student,))
