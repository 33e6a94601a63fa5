"""SigLIP's loss."""

import math

import pytest
import torch

from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.sigmoid import sigmoid_loss


def test_a_value_by_hand():
    """Two pairs: -1/2 [log s(2) + log s(1) + log s(0) + log s(-3)] with the signs of (1, -1, -1, 1)."""
    logits = torch.tensor([[2.0, -1.0], [0.0, -3.0]])
    log_sigmoid = {x: -math.log1p(math.exp(-x)) for x in (2.0, 1.0, 0.0, -3.0)}
    assert sigmoid_loss(logits).item() == pytest.approx(-sum(log_sigmoid.values()) / 2, rel=1e-6)


def test_pairs_far_apart_cost_nothing():
    assert sigmoid_loss(200 * torch.eye(5) - 100).item() == pytest.approx(0, abs=1e-30)


def test_the_gradient():
    logits = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(sigmoid_loss, logits)


def test_a_bias_makes_the_contrastive_loss_one_of_pairs():
    logits, bias = torch.randn(4, 4), torch.tensor(-10.0, requires_grad=True)
    loss = contrastive_loss(logits, bias)
    assert loss.item() == pytest.approx(sigmoid_loss(logits - 10).item())
    loss.backward()
    assert bias.grad is not None
    assert contrastive_loss(logits).item() != pytest.approx(loss.item())
