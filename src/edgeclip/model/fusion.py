"""Token fusion: similar patches become one on the way through an image tower, so that later layers have fewer.

Tokens alternate between two sets, A (which the class token leads) and N. Each is matched with the most similar token of
the other set, and the best matches are fused; the class token is fused with none. Two criteria:

    tome   the cosine of the keys, which are averaged over heads. Between attention and MLP; A into N; a fused token is
           the mean of its patches (Bolya et al. 2023, Token Merging, section 3)
    mctf   ((cos(x_i, x_j) + 1) / 2) (a_i a_j)^-p (m_i m_j)^-q, a being the attention that a token receives and m how
           many patches it is. Before the block; half of them A into N and half N into the A that are left; a fused
           token is the mean weighted by a m; and the block's attention is not computed anew, its rows and columns are
           fused too (Lee et al. 2024, Multi-criteria Token Fusion, sections 3.1 to 3.3, whose code divides a and m by
           what an image's tokens share, which changes no order)

In either, a token of m patches counts m times in every later softmax. All shapes are static, and what other frameworks
scatter is a product with ones and zeros: every runtime has these operators.

Shape legend: B images, T tokens, M of them after fusing, A and N tokens of the two sets, K of a set that are left,
D hidden size, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.config import Fusion

NEVER = -2.0
"""A score below all others, of which cosines are the smallest."""


class AttentionParts(Protocol):
    """An attention in parts, however they are computed; queries come divided by the root of the head size."""

    num_heads: int

    def query_key(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key, (B, T, D) each."""

    def query_key_value(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three, by one product."""

    def value(self, x_BTD: Tensor) -> Tensor:
        """The value alone."""

    def project(self, y_BTD: Tensor) -> Tensor:
        """The output projection."""


@dataclass(frozen=True)
class FusionStep:
    """What is fused in one block: `merged` tokens fewer."""

    fusion: Fusion
    merged: int

    @property
    def ahead(self) -> bool:
        """Whether tokens are fused before the values are made."""
        return self.fusion.criterion == "mctf"


@dataclass(frozen=True)
class Fused:
    """Which tokens became which: `members` (B, M, T), ones and zeros, and the `weight` of each in its mean, (B, T)."""

    members: Tensor
    weight: Tensor

    def mean(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, M, D), weighted."""
        weighted_BMT = self.members * self.weight[:, None]
        return (weighted_BMT / weighted_BMT.sum(dim=-1, keepdim=True)) @ x_BTD

    def total(self, size_BT: Tensor) -> Tensor:
        """(B, T) -> (B, M)."""
        return (self.members @ size_BT[:, :, None])[:, :, 0]

    def spread(self, x_BMD: Tensor) -> Tensor:
        """(B, M, D) -> (B, T, D): for each token what it became."""
        return self.members.transpose(1, 2) @ x_BMD


def fuse(
    attention: AttentionParts, norm: nn.Module, x_BTD: Tensor, size_BT: Tensor | None, step: FusionStep
) -> tuple[Tensor, Tensor]:
    """A block up to its MLP, with fewer tokens out than in.

    Args:
        attention: the block's.
        norm: what is before it.
        x_BTD: (B, T, D) float, the class token first.
        size_BT: (B, T) float, patches of each token; None for one each.
        step: how.

    Returns:
        (B, M, D), the class token first, and their sizes (B, M).
    """
    mask_B11T, H = log_size(size_BT), attention.num_heads
    size_BT = torch.ones_like(x_BTD[..., 0]) if size_BT is None else size_BT
    if not step.ahead:
        query_BTD, key_BTD, value_BTD = attention.query_key_value(norm(x_BTD))
        weights_BHTT = _softmax(query_BTD, key_BTD, H, mask_B11T)
        x_BTD = x_BTD + attention.project(_average(weights_BHTT, value_BTD))
        fused = by_keys(_heads(key_BTD, H).mean(dim=1), size_BT, step.merged)
        return fused.mean(x_BTD), fused.total(size_BT)
    weights_BHTT = _softmax(*attention.query_key(norm(x_BTD)), H, mask_B11T)
    fused = by_criteria(x_BTD, weights_BHTT.mean(dim=(1, 2)), size_BT, step)
    x_BMD = fused.mean(x_BTD)
    # The mean of rows of w S^T v is that of the rows of w (S^T v): no fused weights are needed.
    value_BTD = fused.spread(attention.value(norm(x_BMD)))
    x_BMD = x_BMD + attention.project(fused.mean(_average(weights_BHTT, value_BTD)))
    return x_BMD, fused.total(size_BT)


def log_size(size_BT: Tensor | None) -> Tensor | None:
    """(B, 1, 1, T), to be added to the scores of keys, so that one of m patches counts m times; None for None."""
    return None if size_BT is None else size_BT.log()[:, None, None]


def by_keys(key_BTK: Tensor, size_BT: Tensor, merged: int) -> Fused:
    """ToMe's criterion, of (B, T, K) keys."""
    return Fused(members(_cosines(key_BTK), merged), size_BT)


def by_criteria(x_BTD: Tensor, received_BT: Tensor, size_BT: Tensor, step: FusionStep) -> Fused:
    """MCTF's criteria; `received` (B, T) is the attention that each token receives, mean over heads and queries."""
    fusion = step.fusion
    factor_BT = received_BT.clamp(min=1e-9) ** -fusion.attention_power * size_BT**-fusion.size_power
    scores_BAN = (_cosines(x_BTD) + 1) / 2 * factor_BT[:, ::2, None] * factor_BT[:, None, 1::2]
    into_n = step.merged // 2
    return Fused(members(scores_BAN, into_n, step.merged - into_n), received_BT * size_BT)


def members(scores_BAN: Tensor, into_n: int, into_a: int = 0) -> Tensor:
    """Fuse the best matches.

    Args:
        scores_BAN: how well tokens of A, the even ones, and of N match; those of the class token do not count.
        into_n: how many tokens of A go to their match in N.
        into_a: how many of N go to theirs among the A that are left.

    Returns:
        (B, M, A + N) of ones and zeros: the class token, the A that are left, and the N that are left.
    """
    B, A, N = scores_BAN.shape
    device, K = scores_BAN.device, A - into_n
    is_class_A1 = torch.arange(A, device=device)[:, None] == 0
    scores_BAN = torch.where(is_class_A1, NEVER, scores_BAN)
    is_left_BA, rank_BA, to_BA, left_BK = _leave(scores_BAN, into_n)
    place_BN = (K + torch.arange(N, device=device)).expand(B, N)
    if into_a:
        scores_BNK = scores_BAN.gather(1, left_BK[:, :, None].expand(B, K, N)).transpose(1, 2)
        is_left_BN, rank_BN, to_BN, _ = _leave(scores_BNK, into_a)
        place_BN = torch.where(is_left_BN, K + rank_BN, to_BN)
    place_BA = torch.where(is_left_BA, rank_BA, place_BN.gather(1, to_BA))
    place_BT = torch.cat([place_BA, place_BN], dim=1).index_select(1, _alternating(A, N).to(device))
    M = A + N - into_n - into_a
    return (torch.arange(M, device=device)[:, None] == place_BT[:, None]).to(scores_BAN.dtype)


def _leave(scores_BST: Tensor, go: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each token of a set S: whether it is left when the best matches go, its rank among those, and its match.

    The fourth is (B, K), those that are left, the worst match first.
    """
    S = scores_BST.shape[1]
    best_BS, to_BS = scores_BST.max(dim=-1)
    left_BK = best_BS.topk(S - go, dim=-1, largest=False, sorted=True).indices
    is_BKS = (left_BK[:, :, None] == torch.arange(S, device=left_BK.device)).long()
    rank_BS = (is_BKS * torch.arange(S - go, device=left_BK.device)[:, None]).sum(dim=1)
    return is_BKS.sum(dim=1) > 0, rank_BS, to_BS, left_BK


def _alternating(A: int, N: int) -> Tensor:
    """Where each of A + N tokens is in a list of the even ones and then the odd ones."""
    return torch.tensor([t // 2 + t % 2 * A for t in range(A + N)])


def _cosines(x_BTD: Tensor) -> Tensor:
    """(B, T, D) -> (B, A, N)."""
    unit_BTD = functional.normalize(x_BTD, dim=-1)
    return unit_BTD[:, ::2] @ unit_BTD[:, 1::2].transpose(1, 2)


def _heads(x_BTD: Tensor, H: int) -> Tensor:
    return x_BTD.unflatten(-1, (H, x_BTD.shape[-1] // H)).transpose(1, 2)


def _softmax(query_BTD: Tensor, key_BTD: Tensor, H: int, mask_B11T: Tensor | None) -> Tensor:
    """Attention weights, (B, H, T, T)."""
    scores_BHTT = _heads(query_BTD, H) @ _heads(key_BTD, H).transpose(-1, -2)
    return (scores_BHTT if mask_B11T is None else scores_BHTT + mask_B11T).softmax(dim=-1)


def _average(weights_BHTT: Tensor, value_BTD: Tensor) -> Tensor:
    """What each query makes of the values, (B, T, D)."""
    return (weights_BHTT @ _heads(value_BTD, weights_BHTT.shape[1])).transpose(1, 2).flatten(2)
