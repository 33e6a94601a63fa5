import math

import pytest
import torch
from torch.nn import functional

from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.interactive import InteractiveLoss, interactive_loss

AXES = torch.eye(2)


def test_by_hand():
    """Images find the teacher's texts at logits [2, 0]; texts see no difference between the teacher's images."""
    same = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = interactive_loss(AXES, AXES, same, AXES, 2.0)
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2, rel=1e-5)


def test_a_student_equal_to_its_teacher_has_the_teachers_contrastive_loss():
    V, T = functional.normalize(torch.randn(2, 6, 8), dim=-1)
    expected = contrastive_loss(20 * V @ T.T).item()
    assert interactive_loss(V, T, V, T, 20.0).item() == pytest.approx(expected, rel=1e-5)
    assert interactive_loss(T, V, V, T, 100.0).item() == pytest.approx(0, abs=1e-3)  # the least: each its partner


def test_gradients_reach_embeddings_and_scale():
    v, t, V, T = torch.randn(4, 3, 5, dtype=torch.float64).unbind()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    inputs = (v.requires_grad_(), t.requires_grad_(), scale)
    assert torch.autograd.gradcheck(lambda x, y, a: interactive_loss(x, y, V, T, a), inputs)


def test_another_number_of_pairs_is_refused():
    v = torch.randn(4, 6)
    with pytest.raises(ValueError, match=r"\(4, 6\) and teacher \(3, 6\)"):
        interactive_loss(v, v, v, v[:3], 1.0)


def test_the_scale_is_exponentiated_and_learned():
    loss = InteractiveLoss()
    assert loss.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    loss(AXES, AXES, AXES, AXES).backward()
    assert loss.log_logit_scale.grad.item() < 0  # a perfect match wants a larger scale


def test_the_scale_stops_at_100_and_can_come_back():
    loss = InteractiveLoss()
    loss.log_logit_scale.data.fill_(9.0)
    assert loss.logit_scale.item() == pytest.approx(100, rel=1e-5)
    loss.clamp_logit_scale()
    assert loss.log_logit_scale.item() == pytest.approx(math.log(100), rel=1e-6)
    swapped = AXES.flip(0)  # each image is told that the other's text is its own
    loss(swapped, swapped, AXES, AXES).backward()
    assert loss.log_logit_scale.grad.item() > 1  # a gradient at the limit, towards a smaller scale
