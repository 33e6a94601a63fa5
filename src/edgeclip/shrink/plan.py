"""What a student keeps of its teacher, and proposals for a fraction of the parameters.

Shape legend: D hidden size, E projection size, F intermediate size, H heads, K head size (D = H*K), L layers,
V vocabulary.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar

from msgspec.structs import replace

from edgeclip.config import (
    MAX_WIDTH,
    ClipConfig,
    Config,
    ConvStem,
    TextConfig,
    TowerConfig,
    VisionConfig,
    check_range,
)
from edgeclip.errors import ConfigError
from edgeclip.shrink.conv_parameters import of_convolutions, of_token_block
from edgeclip.shrink.depth import spread_layers

UNIT_STEP = 16
"""MLP widths are multiples of this, which fill the registers of every integer kernel."""

Tower = TypeVar("Tower", VisionConfig, TextConfig)


class TowerPlan(Config, frozen=True, kw_only=True):
    """What is kept of one tower: these teacher layers, so many whole heads (head size unchanged) and MLP units.

    The residual stream narrows with the heads: hidden_size = num_attention_heads * head size, as every layout has it.
    """

    layers: tuple[int, ...]
    num_attention_heads: int
    intermediate_size: int

    def __post_init__(self) -> None:
        if not self.layers or self.layers[0] < 0 or any(a >= b for a, b in pairwise(self.layers)):
            raise ConfigError(
                f"layers {list(self.layers)}",
                expected="ascending layer numbers from 0",
                fix="write layers = [0, 1, 2] or the like into [shrink.plan]",
            )
        check_range("num_attention_heads", self.num_attention_heads, 1, MAX_WIDTH)
        check_range("intermediate_size", self.intermediate_size, 1, 4 * MAX_WIDTH)


class ShrinkPlan(Config, frozen=True, kw_only=True):
    """The [shrink.plan] table of a recipe. `vocabulary` "captions" keeps only the tokens that the captions need."""

    vision: TowerPlan
    text: TowerPlan
    vocabulary: Literal["whole", "captions"]


def student_config(teacher: ClipConfig, plan: ShrinkPlan, vocab_size: int | None = None) -> ClipConfig:
    """The student's configuration.

    Args:
        teacher: the teacher's.
        plan: what is kept of it.
        vocab_size: number of tokens that the captions need, end of text the last; only for `vocabulary = "captions"`.

    Raises:
        ConfigError: the student would be larger than its teacher, or the vocabulary is not the plan's.
    """
    _refuse_convolutions(teacher)
    if (plan.vocabulary == "captions") != (vocab_size is not None):
        raise ConfigError(
            f'vocabulary = "{plan.vocabulary}" {"without" if vocab_size is None else "with"} a reduced vocabulary',
            expected='a reduced vocabulary with "captions" only',
            fix='write vocabulary = "captions" into [shrink.plan]',
        )
    text = _narrowed("text", teacher.text, plan.text)
    if vocab_size is not None:
        _check_kept("tokens", vocab_size, teacher.text.vocab_size)
        pooled = None if text.eos_token_id is None else vocab_size - 1
        text = replace(text, vocab_size=vocab_size, eos_token_id=pooled)
    return replace(teacher, vision=_narrowed("vision", teacher.vision, plan.vision), text=text)


def _refuse_convolutions(teacher: ClipConfig) -> None:
    if teacher.vision.convolutions or teacher.vision.stem or teacher.text.mixer:
        raise ConfigError(
            "a smaller student of a tower with convolutions",
            expected="a teacher of transformers alone, as CLIP's",
            fix="leave out [shrink], as the recipes int8 and qad do",
        )


def _narrowed(name: str, teacher: Tower, plan: TowerPlan) -> Tower:
    if plan.layers[-1] >= teacher.num_hidden_layers:
        raise ConfigError(
            f"a student with {name} layer {plan.layers[-1]} of a teacher with {teacher.num_hidden_layers} layers",
            expected=f"layers 0 to {teacher.num_hidden_layers - 1}",
            fix=f"write layers up to {teacher.num_hidden_layers - 1} into [shrink.plan]",
        )
    _check_kept(f"{name} attention heads", plan.num_attention_heads, teacher.num_attention_heads)
    if plan.num_attention_heads < fewest_heads(teacher):
        raise ConfigError(
            f"a student with {plan.num_attention_heads} {name} attention heads of a teacher with attention pooling",
            expected=f"all {teacher.num_attention_heads}, since its width is that of the embeddings",
            fix=f"write num_attention_heads = {teacher.num_attention_heads} into [shrink.plan]",
        )
    _check_kept(f"{name} MLP units", plan.intermediate_size, teacher.intermediate_size)
    return replace(
        teacher,
        hidden_size=plan.num_attention_heads * head_size(teacher),
        num_hidden_layers=len(plan.layers),
        num_attention_heads=plan.num_attention_heads,
        intermediate_size=plan.intermediate_size,
    )


def _check_kept(what: str, kept: int, available: int) -> None:
    if kept > available:
        raise ConfigError(
            f"a student with {kept} {what} of a teacher with {available}",
            expected="a student no larger than its teacher",
            fix="lower it in the [shrink.plan] table",
        )


def head_size(tower: TowerConfig) -> int:
    """Channels of one attention head."""
    return tower.hidden_size // tower.num_attention_heads


def fewest_heads(tower: TowerConfig) -> int:
    """Heads that a student must keep: all where the tower's width is that of the embeddings."""
    return tower.num_attention_heads if tower.pools_by_attention else 1


def count_parameters(config: ClipConfig) -> int:
    """Number of parameters of the model that a configuration describes."""
    E, vision = config.projection_dim, config.vision
    image = (
        _tower_parameters(vision, E) if vision.convolutions is None else of_convolutions(vision, vision.convolutions, E)
    )
    return image + _tower_parameters(config.text, E) + 1 + config.sigmoid


def _tower_parameters(tower: TowerConfig, E: int) -> int:
    return _outside_blocks(tower, E) + tower.num_hidden_layers * _block_parameters(tower)


def _block_parameters(tower: TowerConfig) -> int:
    D, F = tower.hidden_size, tower.intermediate_size
    norms, attention, mlp = 4 * D, 4 * D * D + 4 * D, 2 * D * F + F + D
    return norms + attention + mlp


def _outside_blocks(tower: TowerConfig, E: int) -> int:
    """Embeddings, final norms and projection, or the attention pooling: a block with a query and one norm less."""
    D = tower.hidden_size
    if isinstance(tower, VisionConfig):
        plain = D * tower.num_channels * tower.patch_size**2
        of_patches = D * (tower.num_tokens + 2) + (plain if tower.stem is None else _of_stem(tower, tower.stem))
        if tower.pools_by_attention:
            return of_patches + _block_parameters(tower)
        return of_patches + D * (1 + 2 * tower.pre_norm + E) + E * tower.projection_bias
    assert isinstance(tower, TextConfig)  # noqa: S101 - a tower is one of the two
    embeddings, bert = D * (tower.vocab_size + tower.context_length + 2), tower.bert
    if bert is None:
        mixing = 2 * of_token_block(D, tower.intermediate_size, tower.mixer) if tower.mixer else 0
        return embeddings + mixing + D * E + E * tower.projection_bias
    units = bert.projection_units
    layers = [(D, D, True)] if bert.pooler else []
    layers += [(D, units or E, bert.projection_bias), *([(units, E, bert.projection_bias)] if units else [])]
    return embeddings + sum(inputs * outputs + outputs * biased for inputs, outputs, biased in layers)


def _of_stem(tower: VisionConfig, stem: ConvStem) -> int:
    """Three convolutions, each with a bias."""
    side, width = tower.patch_size // 4, stem.width
    first, second, last = tower.num_channels * side**2 + 1, 4 * width + 1, 4 * width + 1
    return width * (first + second) + tower.hidden_size * last


def propose(
    teacher: ClipConfig,
    fraction: float,
    *,
    vocab_size: int | None = None,
    depth: float | None = None,
    width: float = 1.0,
) -> ShrinkPlan:
    """A student with at most `fraction` of its teacher's parameters, as near below it as whole parts allow.

    Each tower gets its share. It keeps that fraction of its layers, evenly spread: a missing layer saves time on every
    processor, and what remains still fits together. What the embeddings take beyond their share is made up for by
    dropping MLP units, down to half; then by dropping whole heads, the residual stream with them. The text tower
    keeps further layers where its share has room: a smaller vocabulary leaves some. What it leaves over goes to
    the image tower.

    Args:
        teacher: the teacher's configuration.
        fraction: of the parameters, embeddings included.
        vocab_size: tokens that the captions need (`vocabulary.trim_vocabulary`); None keeps the whole vocabulary.
        depth: the fraction of layers to keep, in place of `fraction`; MLP units then go down to an eighth before
            heads do. Of students of one size the deeper start nearer to their teacher, and the wider are faster.
        width: the most heads to keep, as a fraction. What that spares is left over: a narrow student is smaller.

    Raises:
        ConfigError: no student is that small.
    """
    _refuse_convolutions(teacher)
    check_range("fraction", fraction, 0.001, 1)
    check_range("depth", fraction if depth is None else depth, 0.001, 1)
    check_range("width", width, 0.001, 1)
    E, tokens = teacher.projection_dim, teacher.text.vocab_size if vocab_size is None else vocab_size
    _check_kept("tokens", tokens, teacher.text.vocab_size)
    available = replace(teacher.text, vocab_size=tokens)
    share, fewest_units = (fraction, 1 / 2) if depth is None else (depth, 1 / 8)
    limits = _Limits(depth=share, width=width, fewest_units=fewest_units)
    text = _fit("text", available, E, fraction * _tower_parameters(teacher.text, E), limits)
    left = (
        fraction * count_parameters(teacher)
        - 1
        - teacher.sigmoid
        - _tower_parameters(_narrowed("text", available, text), E)
    )
    return ShrinkPlan(
        vision=_fit("vision", teacher.vision, E, left, limits),
        text=text,
        vocabulary="whole" if vocab_size is None else "captions",
    )


class _Limits(NamedTuple):
    """Fractions of a tower: layers to keep, heads at most, MLP units at least."""

    depth: float
    width: float
    fewest_units: float


def _fit(name: str, tower: VisionConfig | TextConfig, E: int, budget: float, limits: _Limits) -> TowerPlan:
    """The widest tower within a budget of parameters; see `propose`."""
    L, full_F = tower.num_hidden_layers, tower.intermediate_size
    fewest = min(L, max(2, math.ceil(limits.depth * L)))
    most = L if isinstance(tower, TextConfig) else fewest
    least = fewest_heads(tower)
    for H in range(max(least, int(limits.width * tower.num_attention_heads)), least - 1, -1):
        D, F = H * head_size(tower), full_F * H // tower.num_attention_heads
        narrow = replace(tower, hidden_size=D, num_attention_heads=H, intermediate_size=F)
        room = int(budget - _outside_blocks(narrow, E))
        kept = min(most, max(fewest, room // _block_parameters(narrow)))
        without_mlps = replace(narrow, intermediate_size=0)
        left = int(budget - _outside_blocks(without_mlps, E)) - kept * _block_parameters(without_mlps)
        units = min(F, left // ((kept + tower.pools_by_attention) * (2 * D + 1)))
        if units < F:
            units = units // UNIT_STEP * UNIT_STEP
        if units >= limits.fewest_units * F:
            return TowerPlan(layers=spread_layers(L, kept), num_attention_heads=H, intermediate_size=units)
    whole = (
        f" of the full width {tower.hidden_size}, which is that of the embeddings" if tower.pools_by_attention else ""
    )
    raise ConfigError(
        f"a {name} tower of {budget:,.0f} parameters",
        expected=f"room for its embeddings and {fewest} layers{whole}",
        fix="raise the fraction, or reduce the vocabulary to what the captions need",
    )


def explain(teacher: ClipConfig, student: ClipConfig) -> str:
    """What a student keeps and what it comes to, a line for each tower and one for the whole."""
    E, before, after = teacher.projection_dim, count_parameters(teacher), count_parameters(student)
    return "\n".join(
        [
            _explain_tower("image", teacher.vision, student.vision, E),
            f"{_explain_tower('text', teacher.text, student.text, E)}, "
            f"{student.text.vocab_size} of {teacher.text.vocab_size} tokens",
            f"all: {after / 1e6:.2f} of {before / 1e6:.2f} M parameters, {100 * after / before:.1f} %",
        ]
    )


def _explain_tower(name: str, teacher: TowerConfig, student: TowerConfig, E: int) -> str:
    return (
        f"{name}: {student.num_hidden_layers} of {teacher.num_hidden_layers} layers, "
        f"{student.num_attention_heads} of {teacher.num_attention_heads} heads "
        f"(width {student.hidden_size} of {teacher.hidden_size}), "
        f"{student.intermediate_size} of {teacher.intermediate_size} MLP units, "
        f"{_tower_parameters(student, E) / 1e6:.2f} of {_tower_parameters(teacher, E) / 1e6:.2f} M parameters"
    )
