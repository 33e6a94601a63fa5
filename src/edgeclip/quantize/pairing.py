"""Which inputs of a Linear stand side by side, so that its weights get smaller steps: an exact rewrite for int8.

A step must hold a weight and the sum of two neighbours, see `scheme.weight_step`. Channels that one layer makes and
another reads, with nothing between that mixes them, can stand in any order. The sum of the eighth powers of all sums of
two inputs' weights, each row's largest weight being 1, says what the two would cost as neighbours: the largest of them
nearly decide it, over all rows. Inputs are paired one by one, those with the largest weights first, each with the
cheapest that is left. Expanded, the costs of many pairs are one product of two matrices of powers. A third of all costs
is enough: only half of the inputs choose, among ever fewer.

Shape legend: O output channels, I input channels, K those of one head, P powers, L inputs that are left, R that choose.
"""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn

POWER = 8
CHOOSING = 512
"""Inputs whose costs are computed at once."""


@torch.no_grad()
def pair_inputs(producer: nn.Linear, consumer: nn.Linear, heads: int = 1) -> None:
    """Reorder in place what `consumer` reads, within each head, and what `producer` makes for it.

    Args:
        producer: its last outputs are the consumer's inputs, element by element.
        consumer: whose weights are to be rounded.
        heads: parts of equal size that stay where they are.
    """
    inputs, head_size = consumer.in_features, consumer.in_features // heads
    parts = consumer.weight.split(head_size, dim=1)
    order_I = torch.cat([order(part_OK) + head * head_size for head, part_OK in enumerate(parts)])
    consumer.weight.copy_(consumer.weight[:, order_I])
    for made in (producer.weight, producer.bias):
        made[-inputs:] = made[-inputs:][order_I]


def order(weight_OK: Tensor) -> Tensor:
    """(K,) int64: which input should stand at each place; an odd one without a neighbour comes last."""
    scaled_KO = (weight_OK.double() / weight_OK.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)).T.contiguous()
    *powers, eighth_KO = accumulate([scaled_KO] * POWER, torch.mul)
    powers_KPO, own_K = torch.stack(powers, dim=1), eighth_KO.sum(dim=1)
    left_L, found = torch.arange(len(own_K)), list[Tensor]()
    while len(left_L) > 1:
        choosing_R = own_K[left_L].argsort(descending=True, stable=True)[:CHOOSING]
        cost_RL = _cost(powers_KPO[left_L[choosing_R]], powers_KPO[left_L]) + own_K[left_L]  # own_K[R] moves no minimum
        taken = _pairs(choosing_R, cost_RL)
        found.append(left_L[taken])
        is_left_L = torch.ones(len(left_L), dtype=torch.bool)
        is_left_L[taken] = False
        left_L = left_L[is_left_L]
    return torch.cat([*found, left_L])


def _cost(powers_RPO: Tensor, powers_LPO: Tensor) -> Tensor:
    """(R, L): the sum over O of the eighth power of each sum of two, without their own eighth powers."""
    binomial_P1 = torch.tensor([[math.comb(POWER, k)] for k in range(1, POWER)], dtype=torch.float64)
    return (powers_RPO.flip(1) * binomial_P1).flatten(1) @ powers_LPO.flatten(1).T


def _pairs(choosing_R: Tensor, cost_RL: Tensor) -> list[int]:
    """Each that chooses and is not yet taken, and after it the cheapest that is left: at least one pair of the L."""
    taken_L, found = torch.zeros(cost_RL.shape[1]), list[int]()
    for one, cost_L in zip(choosing_R.tolist(), cost_RL, strict=True):
        if not taken_L[one] and len(found) + 1 < len(taken_L):
            taken_L[one] = math.inf
            other = int((cost_L + taken_L).argmin())
            taken_L[other] = math.inf
            found += [one, other]
    return found
