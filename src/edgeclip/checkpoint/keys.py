"""Key tables: which names a layout gives to the model's tensors, and how their shapes differ. They work both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgeclip.errors import CheckpointError

SHOWN_KEYS = 8
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
CONSTANTS = ("position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size", "num_batches_tracked")
"""The last part of names of what no model learns, which some writers keep beside the weights."""


@dataclass(frozen=True)
class Rule:
    """One tensor of ours from one or more of theirs. `ours_of` and `theirs_of` are inverse to each other."""

    ours: str
    theirs: tuple[str, ...]
    ours_of: Callable[[Sequence[Tensor]], Tensor]
    theirs_of: Callable[[Tensor], Sequence[Tensor]]


def same(ours: str, theirs: str) -> Rule:
    """The same tensor under another name."""
    return Rule(ours, (theirs,), lambda tensors: tensors[0], lambda tensor: (tensor,))


def leading(ours: str, theirs: str) -> Rule:
    """The same tensor, stored with an axis of size 1 before its own."""
    return Rule(ours, (theirs,), lambda tensors: tensors[0].squeeze(0), lambda tensor: (tensor[None],))


def one_number(ours: str, theirs: str, *, is_vector: bool = False) -> Rule:
    """A tensor of one number, which files have with or without an axis; `is_vector` is how it is written."""
    shape = (1,) if is_vector else ()
    return Rule(ours, (theirs,), lambda tensors: tensors[0].reshape(()), lambda tensor: (tensor.reshape(shape),))


def vector(ours: str, theirs: str, *, leading: int) -> Rule:
    """A vector stored with so many axes of size 1 before its own."""
    ones = (1,) * leading
    return Rule(ours, (theirs,), lambda tensors: tensors[0].flatten(), lambda tensor: (tensor.reshape(*ones, -1),))


def linear(ours: str, theirs: str) -> list[Rule]:
    """Weight and bias of a Linear or LayerNorm."""
    return [same(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]


def scaled_linear(ours: str, theirs: str, scale: str, *, after: int = 0) -> list[Rule]:
    """A Linear of which each output is multiplied by a scale, which goes into it; not to be written back.

    The scale is stored with so many axes of size 1 `after` its own.
    """
    return [
        Rule(
            f"{ours}.{part}",
            (f"{theirs}.{part}", scale),
            lambda tensors: tensors[0] * tensors[1].view(-1, *[1] * (tensors[0].ndim - 1)),
            lambda tensor: (tensor, tensor.new_empty(len(tensor), *[1] * after)),
        )
        for part in ("weight", "bias")
    ]


def constant(ours: str, value: Tensor) -> Rule:
    """A tensor that a layout has not, since it changes nothing."""
    return Rule(ours, (), lambda _: value, lambda _: ())


def without_first(ours: str, theirs: str) -> Rule:
    """A table (V, D) stored without its first row, which is 0, and with an axis of size 1 before its own."""
    return Rule(
        ours,
        (theirs,),
        lambda tensors: functional.pad(tensors[0].squeeze(0), [0, 0, 1, 0]),
        lambda tensor: (tensor[None, 1:],),
    )


def with_bias_after_first(ours: str, theirs: str, bias: str) -> Rule:
    """A table (V, D), stored with an axis of size 1 before its own, and what is added to each row but the first."""
    return Rule(
        ours,
        (theirs, bias),
        lambda tensors: torch.cat([tensors[0][0, :1], tensors[0][0, 1:] + tensors[1]]),
        lambda tensor: (tensor[None], torch.zeros_like(tensor[0])),
    )


def without_key(ours: str, theirs: Sequence[str]) -> Rule:
    """Query, key and value stacked, of which the key is not stored, since it is 0."""

    def parts(tensor: Tensor) -> Sequence[Tensor]:
        return tensor.chunk(3)[::2]

    def ours_of(tensors: Sequence[Tensor]) -> Tensor:
        query, value = tensors
        return torch.cat([query, torch.zeros_like(query), value])

    return Rule(ours, tuple(theirs), ours_of, parts)


def transposed(ours: str, theirs: str) -> Rule:
    """A matrix stored as (in, out) instead of (out, in)."""
    return Rule(ours, (theirs,), lambda tensors: tensors[0].T, lambda tensor: (tensor.T,))


def stacked(ours: str, theirs: Sequence[str], shares: Sequence[int] = (1, 1, 1)) -> Rule:
    """Parts stacked along the first axis: query, key and value, each a share of it."""

    def parts(tensor: Tensor) -> Sequence[Tensor]:
        unit = tensor.shape[0] // sum(shares)
        return tensor.split([unit * share for share in shares])

    return Rule(ours, tuple(theirs), lambda tensors: torch.cat(list(tensors)), parts)


def convolution(ours: str, theirs: str, channels: int, patch_size: int) -> Rule:
    """A patch convolution (D, C, P, P) as the Linear (D, C*P*P) that it is."""
    return Rule(
        ours,
        (theirs,),
        lambda tensors: tensors[0].flatten(1),
        lambda tensor: (tensor.reshape(-1, channels, patch_size, patch_size),),
    )


def check_names(present: Sequence[str], wanted: Sequence[str], source: str) -> None:
    """Compare the names in a checkpoint with those a layout has.

    Raises:
        CheckpointError: listing what is missing and what is surplus.
    """
    missing, surplus = sorted(set(wanted) - set(present)), sorted(set(present) - set(wanted))
    problems = [f"{kind} {_listed(names)}" for kind, names in (("missing", missing), ("unknown", surplus)) if names]
    if problems:
        raise CheckpointError(
            f"{source} with {' and '.join(problems)}",
            expected="exactly the tensors that its configuration implies",
            fix="take weights and configuration from the same page",
        )


def without_constants(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The learned tensors alone.

    Raises:
        CheckpointError: the constants say that positions are not in order, or that the text tower is not causal.
    """
    kept, odd = {}, []
    for name, tensor in state.items():
        kind = name.rpartition(".")[2]
        if kind not in CONSTANTS:
            kept[name] = tensor
        elif kind == "position_ids":
            odd += [] if torch.equal(tensor.flatten(), torch.arange(tensor.numel(), dtype=tensor.dtype)) else [name]
        elif kind == "attn_mask":
            odd += [] if torch.equal(tensor, torch.full_like(tensor, -torch.inf).triu(1)) else [name]
    if odd:
        raise CheckpointError(
            f"{source} with {_listed(odd)} of other values than CLIP's",
            expected="positions in order and a causal mask",
            fix="give a checkpoint such as openai/clip-vit-base-patch32",
        )
    return kept


def to_ours(
    state: dict[str, Tensor], rules: Sequence[Rule], shapes: dict[str, torch.Size], source: str
) -> dict[str, Tensor]:
    """Rename and reshape a checkpoint's tensors, every one of them, as float32.

    Args:
        state: the checkpoint's tensors.
        rules: the layout's key table.
        shapes: shape of each tensor of ours.
        source: what to call the checkpoint in an error.

    Raises:
        CheckpointError: a tensor is missing, surplus, misshapen or not finite; the names are listed.
    """
    check_names(list(state), [name for rule in rules for name in rule.theirs], source)
    _check_numbers(state, source)
    ours: dict[str, Tensor] = {}
    misshapen: list[str] = []
    for rule in rules:
        tensors = [state[name].to(torch.float32) for name in rule.theirs]
        wanted = [tuple(t.shape) for t in rule.theirs_of(torch.empty(shapes[rule.ours], device="meta"))]
        got = [tuple(t.shape) for t in tensors]
        if got == wanted or {*got, *wanted} == {(), (1,)}:
            ours[rule.ours] = rule.ours_of(tensors).contiguous()
        else:
            misshapen += [f"{n} {g} not {w}" for n, g, w in zip(rule.theirs, got, wanted, strict=True) if g != w]
    overflowing = [name for name, tensor in ours.items() if not tensor.isfinite().all()]
    if overflowing:
        raise CheckpointError(
            f"{source}, of which {_listed(overflowing)} cannot be made: they would not be finite",
            expected="batch normalisations of a positive variance",
            fix="download it again",
        )
    if misshapen:
        raise CheckpointError(
            f"{source} with misshapen tensors {_listed(misshapen)}",
            expected="the shapes that its configuration implies",
            fix="take weights and configuration from the same page",
        )
    return ours


def _check_numbers(state: dict[str, Tensor], source: str) -> None:
    unusable = [f"{name} ({t.dtype})" for name, t in state.items() if t.dtype not in FLOATS or not t.isfinite().all()]
    if unusable:
        raise CheckpointError(
            f"{source}, whose {_listed(sorted(unusable))} are not finite floating-point numbers",
            expected="weights in float32, float16, bfloat16 or float64",
            fix="give the unquantized checkpoint, or download it again",
        )


def to_theirs(state: dict[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """The other way: our tensors under the layout's names and shapes."""
    return {
        name: tensor.contiguous()
        for rule in rules
        for name, tensor in zip(rule.theirs, rule.theirs_of(state[rule.ours]), strict=True)
    }


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_KEYS
    return ", ".join(names[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
