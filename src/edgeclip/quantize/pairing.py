"""Which inputs of a Linear stand side by side, so that its weights get smaller steps: an exact rewrite for int8.

A step must hold a weight and the sum of two neighbours, see `scheme.weight_step`. Channels that one layer makes and
another reads, with nothing between that mixes them, can stand in any order. The sum of the eighth powers of all sums of
two inputs' weights, each row's largest weight being 1, says what the two would cost as neighbours: the largest of them
nearly decide it, over all rows. Expanded it is nine products of matrices for all pairs at once; inputs are then paired
one by one, those with the largest weights first, each with the cheapest that is left.

Shape legend: O output channels, I input channels, K those of one head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

POWER = 8


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
    scaled_OK = weight_OK.double() / weight_OK.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
    powers = [scaled_OK**k for k in range(POWER + 1)]
    cost_KK = sum((math.comb(POWER, k) * powers[k].T @ powers[POWER - k] for k in range(1, POWER)), torch.zeros(()))
    cost_KK += (own_K := powers[POWER].sum(dim=0))[:, None] + own_K
    cost_KK.fill_diagonal_(math.inf)
    found, left = list[int](), dict.fromkeys(own_K.argsort(descending=True, stable=True).tolist())
    while len(left) > 1:
        one = next(iter(left))
        other = int(cost_KK[one].argmin())
        cost_KK[:, [one, other]] = math.inf
        found += [one, other]
        del left[one], left[other]
    return torch.tensor([*found, *left])
