import math

import pytest
import torch
from torch.nn import functional

from edgeclip.distill.losses.affinity import affinity_loss

AXES = torch.eye(2)


def test_by_hand():
    """The student's pairs are at right angles, and all alike to the teacher: rows [1/2, 1/2] against [p, 1 - p]."""
    p = 1 / (1 + math.exp(-3))
    expected = -0.5 * math.log(p) - 0.5 * math.log(1 - p) - math.log(2)
    same = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert affinity_loss(AXES, AXES, same, same, logit_scale=3.0).item() == pytest.approx(expected, rel=1e-5)


def test_it_sees_similarities_alone():
    V, T = functional.normalize(torch.randn(2, 6, 4, dtype=torch.float64), dim=-1)
    rotation, _ = torch.linalg.qr(torch.randn(8, 4, dtype=torch.float64))
    turned = affinity_loss(V @ rotation.T, T @ rotation.T, V, T)
    assert turned.item() == pytest.approx(0, abs=1e-12)
    assert affinity_loss(T, V, V, T).item() > 0.01  # images and texts exchanged


@pytest.mark.parametrize("options", [{}, {"logit_scale": 3.0}])
def test_it_is_the_published_cross_entropy_less_the_entropy_of_the_teacher(options: dict[str, float]):
    scale = options.get("logit_scale", 50.0)
    v, t, V, T = functional.normalize(torch.randn(4, 5, 8, dtype=torch.float64), dim=-1)
    expected = 0.0
    for x, y, X, Y in ((v, t, V, T), (t, v, T, V)):
        labels = (scale * X @ Y.T).softmax(dim=1)
        entropy = -(labels * labels.log()).sum(dim=1).mean()
        expected += (functional.cross_entropy(scale * x @ y.T, labels) - entropy).item() / 2
    assert affinity_loss(v, t, V, T, **options).item() == pytest.approx(expected, rel=1e-9)


def test_gradients():
    v, t, V, T = torch.randn(4, 3, 5, dtype=torch.float64).unbind()
    inputs = (v.requires_grad_(), t.requires_grad_())
    assert torch.autograd.gradcheck(lambda *x: affinity_loss(*x, V, T, logit_scale=2.0), inputs)
