"""What others need to know of a tower's insides, in one place: which token is pooled, what of a text must be computed,
and what the axes of each tensor are.

A tower's `pooling` decides: see `config.VisionConfig` and `config.TextConfig`.

    pooling          tower   embedding                                    exact for it
    class            image   the class token, projected                   last block for that token only
    patches          image   the mean of all other tokens, projected      none
    attention        image   a learned query over all tokens              the query folded into keys and values
    places           image   the mean of all places, projected            branches folded as weights are loaded
    end              text    the end-of-text token, projected             last block for it only; texts cut after it,
                                                                          where no token `sees_all`
    last             text    the last position, projected with a bias     last block for it only; never cut
    first            text    the first token, projected                   last block for it only; padding left out
    mean             text    the mean of all tokens, projected            padding left out

Shape legend: B batch, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from edgeclip.config import TextConfig, TowerConfig

Axis = Literal["channels", "heads", "query_key_value", "units", "other"]
"""Channels of the residual stream; those of the heads, once or as query, key and value; units of the MLP; or none of
them: patch values, positions, vocabulary, embedding."""

AXES: dict[str, tuple[Axis, ...]] = {
    "patch_embedding.weight": ("channels", "other"),
    "token_embedding.weight": ("other", "channels"),
    "position_embedding": ("other", "channels"),
    "projection.weight": ("other", "channels"),
    "projection.bias": ("other",),
    "projection_out.weight": ("other", "other"),
    "pooler.weight": ("channels", "channels"),
    "attention.qkv.weight": ("query_key_value", "channels"),
    "attention.qkv.bias": ("query_key_value",),
    "attention.out.weight": ("channels", "heads"),
    "mlp.fc1.weight": ("units", "channels"),
    "mlp.fc1.bias": ("units",),
    "mlp.fc2.weight": ("channels", "units"),
}
"""Of each tensor, by the end of its name; of those not named here, all vectors, the one axis is channels."""


def axes_of(name: str) -> tuple[Axis, ...]:
    """The axes of a tensor of either tower."""
    return next((axes for end, axes in AXES.items() if name.endswith(end)), ("channels",))


def last_reader(tower: TowerConfig) -> str:
    """The Linear layer of a tower that reads what its blocks have made."""
    return "head.attention.qkv" if tower.pools_by_attention else "projection"


def end_of_text_index(input_ids_BT: Tensor, eos_token_id: int | None) -> Tensor:
    """Position of the first `eos_token_id`, or of the highest id of the row where it is None.

    Args:
        input_ids_BT: (B, T) int64.
        eos_token_id: the id to look for.

    Returns:
        (B,) int64. A row without the id pools its first token, as the reference implementation does.
    """
    if eos_token_id is None:
        return input_ids_BT.argmax(dim=-1)
    return (input_ids_BT == eos_token_id).int().argmax(dim=-1)


def pooled_index(input_ids_BT: Tensor, text: TextConfig) -> Tensor:
    """Position of the token of each text that is pooled, (B,) int64."""
    if text.pooling == "end":
        return end_of_text_index(input_ids_BT, text.eos_token_id)
    B, T = input_ids_BT.shape
    return torch.full((B,), T - 1 if text.pooling == "last" else 0, device=input_ids_BT.device)


def seen(input_ids_BT: Tensor, text: TextConfig) -> Tensor | None:
    """Which tokens count, (B, T): 1, or 0 for padding that no token sees; None where all do."""
    return None if text.bert is None else (input_ids_BT != text.bert.pad_token_id).float()


def mean_of(x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
    """The mean of the tokens that count, (B, D)."""
    return (seen_BT[..., None] * x_BTD).sum(dim=1) / seen_BT.sum(dim=1, keepdim=True)


def places(input_ids_BT: Tensor, text: TextConfig) -> Tensor | slice:
    """The rows of the position embedding that texts are given: (B, T) int64, or the first T for all."""
    if text.bert is None or not text.bert.skips_padding:
        return slice(input_ids_BT.shape[1])
    return ((input_ids_BT != text.bert.pad_token_id).long().cumsum(dim=1) - 1).clamp(min=0)


def take(x_BTD: Tensor, index_B: Tensor) -> Tensor:
    """The token at `index_B` of each row, (B, D)."""
    return x_BTD[torch.arange(x_BTD.shape[0], device=x_BTD.device), index_B]


def texts_alone(input_ids_BT: Tensor, text: TextConfig) -> Iterator[Tensor]:
    """Each text as a device runs it, (1, t): up to the pooled token or the last one seen, where no other counts."""
    if (seen_BT := seen(input_ids_BT, text)) is not None:
        last_B = seen_BT.shape[1] - 1 - seen_BT.flip(1).argmax(dim=1)
    else:
        last_B = pooled_index(input_ids_BT, text)
    for ids_T, last in zip(input_ids_BT, last_B.tolist(), strict=True):
        yield ids_T[None, : last + 1]
