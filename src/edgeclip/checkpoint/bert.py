"""Key tables of text towers of BERT's kind, under the names of transformers.

What is added to every token, of the only kind of segment that a text has, is added to the positions at once; rows that
no text of the context length reads are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edgeclip.checkpoint.keys import Rule, linear, same, stacked
from edgeclip.config import TextConfig

POSITIONS, SEGMENTS = "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"


class _Names(NamedTuple):
    """What a layer's parts are called."""

    layers: str
    query_key_value: tuple[str, str, str]
    out: str
    norm1: str
    fc1: str
    fc2: str
    norm2: str


_SELF = "attention.self."
_BERT = _Names(
    "encoder.layer",
    (f"{_SELF}query", f"{_SELF}key", f"{_SELF}value"),
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_DISTILBERT = _Names(
    "transformer.layer",
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)


def blocks(text: TextConfig, prefix: str, *, distilled: bool = False) -> list[Rule]:
    """The key table of everything but the projection.

    Args:
        text: the tower.
        prefix: of its names.
        distilled: whether they are DistilBERT's.
    """
    names = _DISTILBERT if distilled else _BERT
    table = [
        same("text.token_embedding.weight", f"{prefix}embeddings.word_embeddings.weight"),
        _positions(text, prefix, has_segments=not distilled),
        *linear("text.embedding_norm", f"{prefix}embeddings.LayerNorm"),
    ]
    if text.bert is not None and text.bert.pooler:
        table += linear("text.pooler", f"{prefix}pooler.dense")
    for i in range(text.num_hidden_layers):
        ours, theirs = f"text.transformer.blocks.{i}", f"{prefix}{names.layers}.{i}"
        for part in ("weight", "bias"):
            qkv = [f"{theirs}.{name}.{part}" for name in names.query_key_value]
            table.append(stacked(f"{ours}.attention.qkv.{part}", qkv))
        table += linear(f"{ours}.attention.out", f"{theirs}.{names.out}")
        table += linear(f"{ours}.norm1", f"{theirs}.{names.norm1}")
        table += linear(f"{ours}.mlp.fc1", f"{theirs}.{names.fc1}")
        table += linear(f"{ours}.mlp.fc2", f"{theirs}.{names.fc2}")
        table += linear(f"{ours}.norm2", f"{theirs}.{names.norm2}")
    return table


def projection(text: TextConfig, first: str, second: str) -> list[Rule]:
    """The key table of the projection's one layer or two."""
    assert text.bert is not None  # noqa: S101 - for the type checker
    parts = ("weight", "bias") if text.bert.projection_bias else ("weight",)
    table = [same(f"text.projection.{part}", f"{first}.{part}") for part in parts]
    if text.bert.projection_units is not None:
        table += [same(f"text.projection_out.{part}", f"{second}.{part}") for part in parts]
    return table


def _unused_rows(text: TextConfig) -> int:
    """Rows of RoBERTa's positions before the first that a token has."""
    assert text.bert is not None  # noqa: S101 - for the type checker
    return text.bert.pad_token_id + 1 if text.bert.skips_padding else 0


def _positions(text: TextConfig, prefix: str, *, has_segments: bool) -> Rule:
    unused = _unused_rows(text)

    def ours_of(tensors: Sequence[Tensor]) -> Tensor:
        rows = tensors[0][unused:]
        return rows + tensors[1] if has_segments else rows

    def theirs_of(rows_TD: Tensor) -> Sequence[Tensor]:
        D = rows_TD.shape[1]
        padded = torch.cat([rows_TD.new_zeros(unused, D), rows_TD])
        return (padded, rows_TD.new_zeros(1, D)) if has_segments else (padded,)

    names = (f"{prefix}{POSITIONS}", *([f"{prefix}{SEGMENTS}"] if has_segments else []))
    return Rule("text.position_embedding", names, ours_of, theirs_of)


def used(state: dict[str, Tensor], text: TextConfig, prefix: str) -> dict[str, Tensor]:
    """The tensors without rows that no text reads, and without a pooler that nothing reads."""
    assert text.bert is not None  # noqa: S101 - for the type checker
    rows = {f"{prefix}{POSITIONS}": _unused_rows(text) + text.context_length, f"{prefix}{SEGMENTS}": 1}
    unread = () if text.bert.pooler else (f"{prefix}pooler.",)
    return {name: t[: rows[name]] if name in rows else t for name, t in state.items() if not name.startswith(unread)}
