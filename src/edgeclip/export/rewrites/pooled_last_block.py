"""The last block computed for the pooled token alone.

Of the last block's output only one token is read (the class token, the end of text, or the last position). Its query
attends over the keys and values of all tokens, so these are still computed; the other queries, the output projection
and the MLP of the other tokens are not. In ViT-B/32 this saves about a twentieth of all multiplications.

Shape legend: B batch, T tokens, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.export.rewrites.plain_attention import PlainAttention, divided
from edgeclip.model.layers import Block


class PooledBlock(nn.Module):
    """The same function as a block followed by the choice of one token; its attention must be a `PlainAttention`."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        assert isinstance(block.attention, PlainAttention)  # noqa: S101 - the order of the rewrites
        attention = block.attention
        D = attention.out.in_features
        self.norm1, self.norm2, self.mlp, self.attention = block.norm1, block.norm2, block.mlp, attention
        self.normalizes_after = block.normalizes_after
        self.attention_input, self.mlp_input = block.attention_input, block.mlp_input
        self.query, self.key_value = divided(attention.qkv, D)
        del attention.qkv

    def forward(self, x_BTD: Tensor, at: Tensor | int, mask: Tensor | None) -> Tensor:
        """(B, T, D) and the pooled positions, (B,) or the same for all -> (B, D); `mask` is added to the scores."""
        read_BTD = self.attention_input(x_BTD) if self.normalizes_after else self.norm1(x_BTD)
        key_BTD, value_BTD = self.key_value(read_BTD).chunk(2, dim=-1)
        query_B1D = self.query(take(read_BTD, at))
        pooled_B1D = take(x_BTD, at) + self.attention.attend(query_B1D, key_BTD, value_BTD, mask)
        if self.normalizes_after:
            pooled_B1D = self.norm1(pooled_B1D)
            return self.norm2(pooled_B1D + self.mlp(self.mlp_input(pooled_B1D))).squeeze(1)
        return (pooled_B1D + self.mlp(self.norm2(pooled_B1D))).squeeze(1)


def take(x_BTD: Tensor, at: Tensor | int) -> Tensor:
    """One token of each row, (B, 1, D)."""
    if isinstance(at, int):
        return x_BTD[:, :1] if at == 0 else x_BTD[:, at:]
    return x_BTD.gather(1, at[:, None, None].expand(-1, 1, x_BTD.shape[2]))


def later_mask(T: int, index_B: Tensor) -> Tensor:
    """(B, 1, 1, T): minus infinity for the tokens after the pooled one."""
    later_BT = torch.arange(T)[None, :] > index_B[:, None]
    return torch.where(later_BT, float("-inf"), 0.0)[:, None, None, :]
