import math

import pytest
import torch
from torch.nn import functional

from edgeclip.distill.losses.feature import Projection, feature_loss, projection


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_by_hand():
    image_embeds, teacher_images = torch.tensor([unit(60), unit(0)]), torch.tensor([unit(0), unit(0)])
    text_embeds, teacher_texts = torch.tensor([unit(90), unit(180)]), torch.tensor([unit(0), unit(0)])
    # 1 - cos: images 1/2 and 0, texts 1 and 2.
    loss = feature_loss(image_embeds, text_embeds, teacher_images, teacher_texts)
    assert loss.item() == pytest.approx((0.25 + 1.5) / 2, abs=1e-6)


def test_limits():
    v, t = torch.randn(2, 5, 8)
    assert feature_loss(v, t, 3 * v, 0.1 * t).item() == pytest.approx(0, abs=1e-6)
    assert feature_loss(v, t, -v, -t).item() == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("E", [64, 512])
def test_the_published_squared_error_is_this_loss_with_another_weight(E: int):
    v, t, V, T = functional.normalize(torch.randn(4, 6, E, dtype=torch.float64), dim=-1)
    published = 2000 * (functional.mse_loss(v, V) + functional.mse_loss(t, T))
    assert published.item() == pytest.approx(8000 / E * feature_loss(v, t, V, T).item(), rel=1e-9)


def test_gradients():
    v, t, V, T = torch.randn(4, 3, 5, dtype=torch.float64).unbind()
    assert torch.autograd.gradcheck(lambda *x: feature_loss(*x, V, T), (v.requires_grad_(), t.requires_grad_()))


def test_other_sizes_are_refused_and_a_projection_mends_them():
    v, V = torch.randn(4, 6), torch.randn(4, 8)
    with pytest.raises(ValueError, match=r"student \(4, 6\) and teacher \(4, 8\)"):
        feature_loss(v, v, V, V)
    with pytest.raises(ValueError, match=r"\(4, 6\) and teacher \(1, 6\)"):
        feature_loss(v, v, v[:1], v[:1])
    project = projection(6, 8)
    feature_loss(project(v), project(v), V, V).backward()
    assert isinstance(project, Projection)
    assert project.weight.grad is not None


def test_a_projection_starts_with_the_cosines_of_the_student_and_is_left_out_where_sizes_agree():
    v = functional.normalize(torch.randn(7, 6), dim=-1)
    projected = projection(6, 8)(v)
    torch.testing.assert_close(projected @ projected.T, v @ v.T, atol=1e-6, rtol=0)
    assert not list(projection(6, 6).parameters())
    assert projection(6, 6)(v) is v
