"""Attention as two products and a softmax, with the scale folded into the query's weights.

softmax(s q k^T) v with q = x W_q + b_q equals softmax(q' k^T) v with q' = x (s W_q) + s b_q, s = K^-1/2. Exporters turn
`scaled_dot_product_attention` into multiplications of both q and k by the root of s in every layer.

Shape legend: B batch, T tokens, D hidden size, H heads, K head size.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edgeclip.model.fastvit import AttendingBlock
from edgeclip.model.fusion import log_size
from edgeclip.model.layers import Attention, Block


class PlainAttention(nn.Module):
    """The same function as `model.layers.Attention`, made from its weights."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        D = attention.out.in_features
        self.num_heads, self.head_size = attention.num_heads, D // attention.num_heads
        scale = torch.ones(3 * D)
        scale[:D] = self.head_size**-0.5
        self.qkv = nn.Linear(D, 3 * D)
        self.qkv.weight = nn.Parameter(attention.qkv.weight.detach() * scale[:, None])
        self.qkv.bias = nn.Parameter(attention.qkv.bias.detach() * scale)
        self.out = attention.out

    @property
    def projections(self) -> tuple[nn.Linear, ...]:
        """As those of `model.layers.Attention`."""
        return (self.qkv,)

    def heads(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, K)."""
        return x_BTD.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)

    def attend(self, query_BQD: Tensor, key_BTD: Tensor, value_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (B, Q, D) over keys and values (B, T, D); `mask` is added to the scores. Returns (B, Q, D)."""
        scores_BHQT = self.heads(query_BQD) @ self.heads(key_BTD).transpose(-1, -2)
        if mask is not None:
            scores_BHQT = scores_BHQT + mask
        y_BHQK = scores_BHQT.softmax(dim=-1) @ self.heads(value_BTD)
        return self.out(y_BHQK.transpose(1, 2).flatten(2))

    def query_key_value(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, scaled, key and value, (B, T, D) each."""
        query_BTD, key_BTD, value_BTD = self.qkv(x_BTD).chunk(3, dim=-1)
        return query_BTD, key_BTD, value_BTD

    def project(self, y_BTD: Tensor) -> Tensor:
        """The output projection."""
        return self.out(y_BTD)

    def forward(self, x_BTD: Tensor, causal: bool, size_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        mask = causal_mask(x_BTD.shape[1]) if causal else log_size(size_BT)
        return self.attend(*self.query_key_value(x_BTD), mask)


class SplitAttention(PlainAttention):
    """The same where tokens are fused between query and key, of all of them, and value, of those that are left."""

    def __init__(self, attention: Attention) -> None:
        super().__init__(attention)
        self.to_query_key, self.to_value = divided(self.qkv, 2 * self.out.in_features)
        del self.qkv

    @property
    def projections(self) -> tuple[nn.Linear, ...]:
        """As those of `model.layers.Attention`."""
        return (self.to_query_key, self.to_value)

    def query_key(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Query, scaled, and key, (B, T, D) each."""
        query_BTD, key_BTD = self.to_query_key(x_BTD).chunk(2, dim=-1)
        return query_BTD, key_BTD

    def value(self, x_BTD: Tensor) -> Tensor:
        """Value, (B, T, D)."""
        return self.to_value(x_BTD)


def divided(linear: nn.Linear, rows: int) -> tuple[nn.Linear, nn.Linear]:
    """Two layers that give the first so many outputs of one, and the others."""
    parts = []
    for part in (slice(None, rows), slice(rows, None)):
        weight, bias = linear.weight[part].detach().clone(), linear.bias[part].detach().clone()
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        parts.append(layer)
    return parts[0], parts[1]


def causal_mask(T: int) -> Tensor:
    """(T, T): 0 where a token may look, minus infinity where it may not."""
    return torch.full((T, T), float("-inf")).triu(1)


def rewrite(blocks: Iterable[nn.Module]) -> int:
    """Replace the attention of every block.

    Returns:
        How many were replaced.
    """
    replaced = list(blocks)
    for block in replaced:
        assert isinstance(block, Block | AttendingBlock)  # noqa: S101 - for the type checker
        ahead = isinstance(block, Block) and block.step is not None and block.step.ahead
        plain = (SplitAttention if ahead else PlainAttention)(block.attention)
        block.attention = plain  # type: ignore[assignment]  # the same function
    return len(replaced)
