"""What holds for every loss, checked through the mix of it alone."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from edgeclip.config import ClipConfig, TextConfig, VisionConfig
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.losses.mix import LOSSES, LossMix
from edgeclip.distill.losses.outputs import Outputs
from edgeclip.model.layers import Tokens

E, PATCHES, WORDS, LAYERS = 8, 4, 5, 2
ZERO_AT_TEACHER = ("feature", "affinity", "contrastive_relational", "hidden_state")
HALVES = (torch.float16, torch.bfloat16)


def config() -> ClipConfig:
    tower = {
        "hidden_size": E,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 1,
        "intermediate_size": E,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }
    return ClipConfig(
        projection_dim=E,
        vision=VisionConfig(image_size=32, patch_size=16, **tower),
        text=TextConfig(vocab_size=100, context_length=WORDS + 1, eos_token_id=99, **tower),
    )


def loss_of(name: str) -> DistillationLoss:
    layers = {"vision_layers": ((1, 1), (2, 2)), "text_layers": ((2, 2),)} if name == "hidden_state" else {}
    return DistillationLoss(LossMix(**{name: 1.0}, **layers), config(), config())


def value(name: str, student: Outputs, teacher: Outputs) -> Tensor:
    return loss_of(name)(student, teacher, progress=0.5)[0]


def outputs(seed: int, B: int, *, scale: float = 20.0, size: float = 1.0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return size * torch.randn(*shape, generator=generator)

    def tokens(T: int) -> Tokens:
        lengths = torch.randint(2, T + 1, (B, 1), generator=generator)
        mask = torch.arange(T) < (lengths if T == WORDS + 1 else T)
        return Tokens(draw(B, T, E), mask.expand(B, T), (draw(B, T, E), draw(B, T, E)))

    embeds = [functional.normalize(draw(B, E), dim=-1) for _ in range(2)]
    return Outputs(*embeds, torch.tensor(scale), tokens(PATCHES + 1), tokens(WORDS + 1))


def changed(outputs: Outputs, change) -> Outputs:
    """Every float tensor changed by `change`; the masks and the scale stay."""

    def of_tokens(tokens: Tokens) -> Tokens:
        return Tokens(change(tokens.embeds), tokens.mask, tuple(map(change, tokens.hidden_states)))

    return replace(
        outputs,
        image_embeds=change(outputs.image_embeds),
        text_embeds=change(outputs.text_embeds),
        image_tokens=of_tokens(outputs.image_tokens),
        text_tokens=of_tokens(outputs.text_tokens),
    )


def permuted(outputs: Outputs, order: Tensor) -> Outputs:
    moved = changed(outputs, lambda x: x[order])
    text = outputs.text_tokens.mask[order]
    return replace(moved, text_tokens=replace(moved.text_tokens, mask=text))


def floats(outputs: Outputs) -> list[Tensor]:
    found: list[Tensor] = []
    changed(outputs, lambda x: found.append(x) or x)
    return found


each_loss = pytest.mark.parametrize("name", LOSSES)
batches = given(seed=st.integers(0, 2**31), B=st.integers(1, 9))
quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@each_loss
@quick
@batches
def test_none_is_negative_and_none_depends_on_the_order_of_the_batch(name: str, seed: int, B: int):
    student, teacher = outputs(seed, B), outputs(seed + 1, B)
    loss = value(name, student, teacher).item()
    assert loss >= -1e-6
    order = torch.randperm(B, generator=torch.Generator().manual_seed(seed))
    again = value(name, permuted(student, order), permuted(teacher, order)).item()
    assert again == pytest.approx(loss, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ZERO_AT_TEACHER)
@quick
@batches
def test_those_that_compare_with_the_teacher_are_0_at_the_teacher_alone(name: str, seed: int, B: int):
    student, teacher = outputs(seed, B), outputs(seed + 1, B)
    assert value(name, teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    if B > 3:  # of few pairs both may be sure of the same ones
        assert value(name, student, teacher).item() > 1e-3


@pytest.mark.parametrize("name", ["contrastive", "affinity", "interactive", "contrastive_relational", "patch_word"])
def test_those_that_compare_pairs_are_0_for_a_single_pair(name: str):
    assert value(name, outputs(0, 1), outputs(1, 1)).item() == 0


def test_softened_labels_have_no_others_in_a_single_pair():
    student = changed(outputs(0, 1), lambda x: x.requires_grad_())
    loss = value("soft_contrastive", student, outputs(1, 1))
    loss.backward()
    assert loss.item() == 0
    assert student.image_embeds.grad.isfinite().all()


@each_loss
def test_no_gradient_reaches_the_teacher(name: str):
    student = changed(outputs(0, 4), lambda x: x.requires_grad_())
    teacher = replace(
        changed(outputs(1, 4), lambda x: x.requires_grad_()), logit_scale=torch.tensor(9.0).requires_grad_()
    )
    value(name, student, teacher).backward()
    assert any(x.grad is not None and x.grad.any() for x in floats(student))
    assert all(x.grad is None for x in (*floats(teacher), teacher.logit_scale))


@each_loss
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype):
    """At scale 100, hidden states up to 60,000: values and gradients are finite and those of the same numbers."""

    def half(outputs: Outputs) -> Outputs:
        largest = changed(outputs, lambda x: x.to(dtype))
        states = tuple((h * (60000 / h.abs().max())).to(dtype) for h in outputs.image_tokens.hidden_states)
        return replace(largest, image_tokens=replace(largest.image_tokens, hidden_states=states))

    student, teacher = (half(outputs(seed, 6, scale=100.0)) for seed in (0, 1))
    exact = value(name, changed(student, Tensor.float), changed(teacher, Tensor.float))
    student = changed(student, lambda x: x.requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        loss = value(name, student, teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    loss.backward()
    assert all(x.grad.isfinite().all() for x in floats(student) if x.grad is not None)


@each_loss
def test_opposite_embeddings_at_scale_100_overflow_nothing(name: str):
    """The worst that unit vectors allow: every pair of the student is opposed, every pair of the teacher equal."""
    axes = functional.normalize(torch.eye(5, E), dim=-1)
    teacher = replace(outputs(1, 5, scale=100.0), image_embeds=axes, text_embeds=axes)
    student = replace(outputs(0, 5, scale=100.0), image_embeds=axes, text_embeds=-axes)
    student = changed(student, lambda x: x.clone().requires_grad_())
    loss = value(name, student, teacher)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(x.grad.isfinite().all() for x in floats(student) if x.grad is not None)


@each_loss
def test_vectors_of_length_0_give_finite_gradients(name: str):
    student = changed(outputs(0, 4), lambda x: torch.zeros_like(x).requires_grad_())
    loss = value(name, student, outputs(1, 4))
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(x.grad.isfinite().all() for x in floats(student) if x.grad is not None)
