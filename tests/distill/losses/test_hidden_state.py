import pytest
import torch

from edgeclip.distill.losses.hidden_state import HiddenStateLoss, hidden_state_loss
from edgeclip.model.layers import Tokens


def tokens(*states: torch.Tensor) -> Tokens:
    B, T, _ = states[0].shape
    return Tokens(torch.zeros(B, T, 1), torch.ones(B, T, dtype=torch.bool), states)


def test_by_hand():
    """Three tokens at 0, 60 and 90 degrees from the teacher's, and a fourth that is padding."""
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 5.0], [2.0, 0.0], [1.0, 0.0]]])
    student = torch.tensor([[[7.0, 0.0], [3**0.5, 1.0], [0.0, 1.0], [-1.0, 0.0]]])
    mask = torch.tensor([[True, True, True, False]])
    assert hidden_state_loss(student, teacher, mask).item() == pytest.approx((0 + 0.5 + 1) / 3, abs=1e-6)


def test_limits():
    states, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    assert hidden_state_loss(states, 1000 * states, mask).item() == pytest.approx(0, abs=1e-6)
    assert hidden_state_loss(states, -states, mask).item() == pytest.approx(2, abs=1e-6)


def test_it_is_half_the_squared_error_of_normalised_states():
    student, teacher = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    mask = torch.rand(3, 4) < 0.7
    squared = ((student / student.norm(dim=-1, keepdim=True) - teacher / teacher.norm(dim=-1, keepdim=True)) ** 2).sum(
        dim=-1
    )
    expected = 0.5 * squared[mask].mean()
    torch.testing.assert_close(hidden_state_loss(student, teacher, mask), expected, atol=1e-12, rtol=0)


def test_gradients():
    student, teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64).unbind()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    inputs = (student.requires_grad_(),)
    assert torch.autograd.gradcheck(lambda h: hidden_state_loss(h, teacher, mask), inputs)
    (gradient,) = torch.autograd.grad(hidden_state_loss(student, teacher, mask), student)
    assert not gradient[~mask].any()


def test_other_tokens_are_refused():
    with pytest.raises(ValueError, match=r"student \(2, 5, 8\) and teacher \(2, 1, 8\)"):
        hidden_state_loss(torch.randn(2, 5, 8), torch.randn(2, 1, 8), torch.ones(2, 5, dtype=torch.bool))


def test_pairs_of_blocks_are_counted_from_1_and_averaged():
    a, b, c = torch.randn(3, 2, 5, 8)
    student, teacher = tokens(a, -c), tokens(b, a, c)
    loss = HiddenStateLoss(((1, 2), (2, 3)), 8, 8)
    assert not list(loss.parameters())
    assert loss(student, teacher).item() == pytest.approx((0 + 2) / 2, abs=1e-6)


def test_each_pair_of_another_width_learns_a_projection_of_its_own():
    student, teacher = tokens(*torch.randn(2, 2, 5, 6)), tokens(*torch.randn(3, 2, 5, 8))
    loss = HiddenStateLoss(((1, 1), (2, 3)), 6, 8)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    before = loss(student, teacher).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert loss(student, teacher).item() < 0.6 * before
    assert not torch.equal(*(p.weight for p in loss.projections))


def test_half_precision_is_projected_in_float32():
    student, teacher = tokens(torch.randn(2, 5, 6).bfloat16()), tokens(torch.randn(2, 5, 8).bfloat16())
    loss = HiddenStateLoss(((1, 1),), 6, 8)
    exact = loss(tokens(student.hidden_states[0].float()), tokens(teacher.hidden_states[0].float()))
    assert loss(student, teacher).item() == pytest.approx(exact.item(), rel=1e-6)
