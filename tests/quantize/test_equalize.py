"""Moving channel sizes: exact, helpful where there are outliers, harmless where there are none."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.export.int8 import PROJECTION
from edgeclip.export.tower_pairs import pairs_of_tower
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.equalize import ScalePair, equalize
from edgeclip.quantize.sensitivity import choose_float_layers, fake_quantized, mean_cosine, sensitivity


def towers(model: Clip) -> list[tuple[nn.Module, list[Tensor]]]:
    torch.manual_seed(5)
    texts = [torch.randint(0, 300, (1, n)) for n in (3, 6, 9, 12)]
    for ids in texts:
        ids[0, -1] = model.config.text.eos_token_id
    images = list(torch.randn(4, 1, 3, 32, 32))
    return [(ExportedImageTower(model).eval(), images), (ExportedTextTower(model).eval(), texts)]


def layers(tower: nn.Module) -> list[str]:
    return [name for name, module in tower.named_modules() if isinstance(module, nn.Linear) and name != PROJECTION]


@torch.no_grad()
def embeds(tower: nn.Module, samples: list[Tensor]) -> Tensor:
    return torch.cat([tower(sample) for sample in samples])


def test_equalizing_changes_no_output_and_repairs_the_twin(varied: Clip):
    for tower, samples in towers(outlier_twin(varied)):
        before = embeds(tower, samples)

        def rounded(tower: nn.Module = tower, samples: list[Tensor] = samples, before: Tensor = before) -> float:
            with fake_quantized(tower, layers(tower)):
                return 1 - mean_cosine(embeds(tower, samples), before)

        damaged = rounded()
        assert equalize(pairs_of_tower(tower), lambda t=tower, s=samples: embeds(t, s))
        torch.testing.assert_close(embeds(tower, samples), before, atol=1e-5, rtol=0)
        assert rounded() < damaged / 4


def test_the_twin_ends_where_the_original_does(varied: Clip):
    for (tower, samples), (other, _) in zip(towers(varied), towers(outlier_twin(varied)), strict=True):
        for one in (tower, other):
            equalize(pairs_of_tower(one), lambda t=one, s=samples: embeds(t, s))
        with fake_quantized(tower, layers(tower)), fake_quantized(other, layers(other)):
            assert mean_cosine(embeds(tower, samples), embeds(other, samples)) > 0.999


def test_a_channel_that_is_never_used_stays_finite():
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(6), nn.Linear(6, 4)
    with torch.no_grad():
        norm.weight[2], norm.bias[2] = 0, 0
        linear.weight[:, 4] = 0
        norm.weight[0] *= 80
    x = torch.randn(20, 6)
    expected = linear(norm(x))
    equalize([ScalePair("norm", (norm.weight, norm.bias), (linear,))], lambda: linear(norm(x)))
    torch.testing.assert_close(linear(norm(x)), expected, atol=1e-5, rtol=0)


def test_a_layer_that_int8_ruins_is_found_and_left_in_float(varied: Clip):
    tower, samples = towers(varied)[0]
    assert isinstance(tower, ExportedImageTower)
    with torch.no_grad():  # one unit of one MLP is always on and huge: no exact rewrite can move its size
        mlp = tower.blocks[0].mlp
        mlp.fc1.weight[7], mlp.fc1.bias[7] = 0, 4000.0
        mlp.fc2.weight[:, 7] = 0
    exact, names = copy.deepcopy(tower), layers(tower)

    def run() -> Tensor:
        return embeds(tower, samples)

    losses = sensitivity(tower, names, run)
    assert max(losses, key=losses.__getitem__) == "blocks.0.mlp.fc2"
    with fake_quantized(tower, names):
        ruined = mean_cosine(run(), embeds(exact, samples))
    left, cosine = choose_float_layers(tower, names, run, run(), min_cosine=(1 + ruined) / 2, at_most=2)
    assert left == ["blocks.0.mlp.fc2"]
    assert cosine >= (1 + ruined) / 2
    assert choose_float_layers(tower, names, run, run(), min_cosine=0.0, at_most=2)[0] == []
    assert len(choose_float_layers(tower, names, run, run(), min_cosine=1.1, at_most=2)[0]) == 2


def test_layers_come_back_after_a_measurement(varied: Clip):
    tower, samples = towers(varied)[0]
    before = embeds(tower, samples)
    with fake_quantized(tower, layers(tower)):
        assert not torch.equal(embeds(tower, samples), before)
    assert torch.equal(embeds(tower, samples), before)
    assert functional.cosine_similarity(before, before).min() > 0.999
