import math

import pytest
import torch

from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.soft_contrastive import soft_contrastive_loss, softening


def test_by_hand():
    """Symmetric logits, of which the first row is [2, 1, 0]: labels [0.8, 0.2 s, 0.2 (1 - s)], s = sigmoid(1)."""
    Z = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    total = math.log(math.exp(2) + math.e + 1)
    s = 1 / (1 + math.exp(-1))
    first_two = total - (0.8 * 2 + 0.2 * s)
    third = math.log(math.exp(2) + 2) - 0.8 * 2  # its others are alike, both logits 0
    assert soft_contrastive_loss(Z, 0.2).item() == pytest.approx((2 * first_two + third) / 3, rel=1e-5)


def test_without_softening_it_is_the_contrastive_loss():
    Z = torch.randn(5, 5)
    assert soft_contrastive_loss(Z, 0.0).item() == pytest.approx(contrastive_loss(Z).item(), rel=1e-6)


def test_the_gradient_vanishes_where_the_pair_has_its_share():
    """Two pairs with p = (0.75, 0.25) in each row and column: at rest at gamma 0.25, pushed apart at less."""
    Z = (torch.eye(2, dtype=torch.float64) * math.log(3)).requires_grad_()
    (at_rest,) = torch.autograd.grad(soft_contrastive_loss(Z, 0.25), Z)
    torch.testing.assert_close(at_rest, torch.zeros_like(Z), atol=1e-12, rtol=0)
    (pushed,) = torch.autograd.grad(soft_contrastive_loss(Z, 0.1), Z)
    assert (pushed.diagonal() < 0).all()


def test_gradients():
    """Labels are constants: the derivative is that of the cross-entropy with them, so they are frozen here too."""
    Z = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    labels = []
    for logits in (Z.detach(), Z.detach().T):
        others = logits.exp() * (1 - torch.eye(4, dtype=torch.float64))
        labels.append(0.7 * torch.eye(4, dtype=torch.float64) + 0.3 * others / others.sum(dim=1, keepdim=True))

    def frozen(logits: torch.Tensor) -> torch.Tensor:
        rows, columns = logits.log_softmax(dim=1), logits.T.log_softmax(dim=1)
        return -((labels[0] * rows).sum() + (labels[1] * columns).sum()) / 8

    assert soft_contrastive_loss(Z, 0.3).item() == pytest.approx(frozen(Z).item(), rel=1e-12)
    assert torch.autograd.gradcheck(frozen, (Z,))
    (ours,), (theirs,) = (torch.autograd.grad(loss, Z) for loss in (soft_contrastive_loss(Z, 0.3), frozen(Z)))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_the_schedule():
    assert [softening(progress, 0.2) for progress in (0, 0.25, 1)] == pytest.approx([0, 0.05, 0.2])
    with pytest.raises(ValueError, match=r"progress 1\.5"):
        softening(1.5, 0.2)
