import math

import pytest
import torch

from edgeclip.distill.losses.contrastive_relational import contrastive_relational_loss


def bernoulli_kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_by_hand():
    student = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.5, 1.5]])
    rows = (bernoulli_kl(sigmoid(1), sigmoid(2)) + bernoulli_kl(sigmoid(1), sigmoid(1))) / 2
    columns = (bernoulli_kl(sigmoid(0.5), sigmoid(2)) + bernoulli_kl(sigmoid(1.5), sigmoid(1))) / 2
    loss = contrastive_relational_loss(student, teacher)
    assert loss.item() == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_it_does_not_see_what_a_softmax_does_not():
    teacher = torch.randn(5, 5, dtype=torch.float64)
    assert contrastive_relational_loss(teacher + 3, teacher).item() == pytest.approx(0, abs=1e-12)
    assert contrastive_relational_loss(2 * teacher, teacher).item() > 0.01


def test_the_gradient_is_that_of_the_cross_entropy():
    student, teacher = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)
    cross_entropy = torch.nn.functional.cross_entropy
    published = cross_entropy(student, teacher.softmax(1)) + cross_entropy(student.T, teacher.T.softmax(1))
    (ours,) = torch.autograd.grad(contrastive_relational_loss(student, teacher), student)
    (theirs,) = torch.autograd.grad(published / 2, student)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_gradients():
    student = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: contrastive_relational_loss(z, teacher), (student,))


def test_another_number_of_pairs_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) and teacher \(1, 1\)"):
        contrastive_relational_loss(torch.zeros(4, 4), torch.zeros(1, 1))
