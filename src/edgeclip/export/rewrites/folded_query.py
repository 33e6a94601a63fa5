"""Attention pooling without keys, and with the values of its averages alone.

The query q of a head is the same for every image, so that its scores s (W_k x_t + b_k).q, s = K^-1/2, are one row of
weights: (s q W_k) x_t. The bias adds the same to all of them, which softmax takes away. And since weights a_t of a head
add up to 1, sum_t a_t (W_v x_t + b_v) = W_v (sum_t a_t x_t) + b_v. Two products of D x D for every token become one of
H x D; what is left is done once an image.

Shape legend: B batch, T tokens, D hidden size, H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.model.layers import AttentionPooling


class FoldedPooling(nn.Module):
    """The same function as an `AttentionPooling`, made from its weights."""

    def __init__(self, pooling: AttentionPooling) -> None:
        super().__init__()
        self.norm, self.mlp, self.out = pooling.norm, pooling.mlp, pooling.attention.out
        scores_HD, value_DD, value_D = (tensor.detach().clone() for tensor in pooling.folded_query())
        (H, D) = scores_HD.shape
        self.scores, self.value = nn.Linear(D, H, bias=False), nn.Linear(D, D)
        self.scores.weight = nn.Parameter(scores_HD)
        self.value.weight, self.value.bias = nn.Parameter(value_DD), nn.Parameter(value_D)
        self.own_HH1 = nn.Buffer(torch.eye(H)[:, :, None])

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, D)."""
        weights_BHT = self.scores(x_BTD).transpose(1, 2).softmax(dim=-1)
        values_BHHK = self.value(weights_BHT @ x_BTD).unflatten(-1, (len(self.own_HH1), -1))
        own_BHK = (values_BHHK * self.own_HH1).sum(dim=1)  # of each head's average, that head's values
        x_B1D = self.out(own_BHK.flatten(1)[:, None])
        return (x_B1D + self.mlp(self.norm(x_B1D))).squeeze(1)
