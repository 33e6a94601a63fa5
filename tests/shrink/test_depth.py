from itertools import pairwise

import pytest

from edgeclip.errors import ConfigError
from edgeclip.shrink.depth import spread_layers


@pytest.mark.parametrize(
    ("total", "kept", "layers"),
    [
        (12, 12, tuple(range(12))),
        (12, 9, (0, 1, 3, 4, 6, 7, 8, 10, 11)),
        (12, 6, (0, 2, 4, 7, 9, 11)),
        (12, 3, (0, 6, 11)),
        (6, 2, (0, 5)),
        (1, 1, (0,)),
    ],
)
def test_layers_by_hand(total: int, kept: int, layers: tuple[int, ...]):
    assert spread_layers(total, kept) == layers


def test_both_ends_are_kept_and_gaps_differ_by_one_at_most():
    for total in range(2, 30):
        for kept in range(2, total + 1):
            layers = spread_layers(total, kept)
            gaps = {b - a for a, b in pairwise(layers)}
            assert (layers[0], layers[-1], len(layers)) == (0, total - 1, kept)
            assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("total", "kept"), [(4, 5), (4, 1), (1, 0)])
def test_impossible_numbers_of_layers(total: int, kept: int):
    with pytest.raises(ConfigError, match=f"{kept} of {total} layers"):
        spread_layers(total, kept)
