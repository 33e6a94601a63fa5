"""The order of GELU's operations changes nothing, and no other activation is replaced."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeclip.export.rewrites import fusable_gelu
from edgeclip.model.layers import Activation


def test_it_is_gelu():
    x = torch.linspace(-9, 9, 1001)
    torch.testing.assert_close(fusable_gelu.gelu(x), functional.gelu(x), atol=2e-6, rtol=0)


def test_only_gelu_is_replaced():
    tower = nn.Sequential(Activation("gelu"), Activation("quick_gelu"), nn.Sequential(Activation("gelu")), nn.GELU())
    quick = tower[1].activation
    assert fusable_gelu.rewrite(tower) == 2
    assert tower[0].activation is tower[2][0].activation is fusable_gelu.gelu
    assert tower[1].activation is quick
