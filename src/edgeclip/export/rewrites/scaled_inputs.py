"""Room for the sizes of channels where a block normalises what it adds up.

Such a block's layers read the residual stream itself, and no normalisation stands before them whose scale could take
what `quantize.equalize` moves out of a channel. A product with a vector can: W x = (W diag(s)) (x / s). It costs a
multiplication a value, where a layer costs as many as it has outputs.

Shape legend: B batch, T tokens, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.model.layers import Block


class ChannelScale(nn.Module):
    """Each channel times a factor, at first 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return x_BTD * self.weight


def rewrite(block: Block | PooledBlock) -> int:
    """Scale what the attention and the MLP of a block read, where it normalises afterwards.

    Returns:
        How many scales were added.
    """
    if not block.normalizes_after:
        return 0
    block.attention_input = ChannelScale(block.attention.out.in_features)
    block.mlp_input = ChannelScale(block.mlp.fc1.in_features)
    return 2
