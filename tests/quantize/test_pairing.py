"""Which inputs stand side by side changes no output, and lets weights have smaller steps."""

import numpy as np
import pytest
import torch

from edgeclip.export.tower_pairs import pair_inputs_of_tower
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip
from edgeclip.quantize.pairing import CHOOSING, order
from edgeclip.quantize.scheme import weight_step
from tests.byte_images import byte_images


def test_neighbours_by_hand():
    """Two large weights of one sign are parted, each with one of the other sign."""
    weight = torch.tensor([[1.0, 0.9, -0.8, -0.7]])
    found = order(weight).tolist()
    assert [{found[0], found[1]}, {found[2], found[3]}] == [{0, 2}, {1, 3}]
    assert order(torch.tensor([[0.1, 1.0, 0.5]])).tolist() == [1, 0, 2]
    assert order(torch.zeros(3, 1)).tolist() == [0]


@pytest.mark.parametrize("size", [192, 193])
def test_it_is_nearly_as_good_as_no_pairs_at_all(size: int):
    weight = torch.randn(48, size, generator=torch.Generator().manual_seed(0))
    places = order(weight)
    assert sorted(places.tolist()) == list(range(size))
    before, after = (float((weight_step(w.numpy()) ** 2).sum()) for w in (weight, weight[:, places]))
    alone = float((np.abs(weight.numpy()).max(axis=1) ** 2).sum() / 127**2)
    assert alone <= after < 1.15 * alone
    assert before > 1.5 * alone


@pytest.mark.parametrize("size", [CHOOSING, 2 * CHOOSING + 301])
def test_each_chooses_the_cheapest_that_is_left_however_many_there_are(size: int):
    weight = torch.randn(6, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[:, 3:9] = 0  # all as cheap: the first of them
    scaled = weight / weight.abs().amax(dim=1, keepdim=True)
    left, found = scaled.pow(8).sum(dim=0).argsort(descending=True, stable=True).tolist(), []
    while len(left) > 1:
        one, others = left[0], torch.tensor(sorted(left[1:]))
        other = int(others[(scaled[:, one, None] + scaled[:, others]).pow(8).sum(dim=0).argmin()])
        found += [one, other]
        left = [index for index in left if index not in (one, other)]
    assert order(weight).tolist() == found + left


@torch.no_grad()
def test_towers_compute_what_they_did(varied: Clip):
    ids = torch.tensor([[5, 6, 7, varied.config.text.eos_token_id]])
    for tower, sample in ((ExportedImageTower(varied), byte_images(2)), (ExportedTextTower(varied), ids)):
        tower.eval()
        before, weights = tower(sample), [parameter.clone() for parameter in tower.parameters()]
        pair_inputs_of_tower(tower)
        moved = [name for (name, now), old in zip(tower.named_parameters(), weights, strict=True) if (now != old).any()]
        assert {name.rpartition(".")[0] for name in moved} >= {
            "blocks.0.mlp.fc2",
            "blocks.0.attention.out",
            "last.mlp.fc2",
        }
        torch.testing.assert_close(tower(sample), before, atol=1e-5, rtol=0)
