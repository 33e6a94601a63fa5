"""Which layers stay in float: found in few passes, and no worse than with a pass for each layer."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.export.int8 import PROJECTION
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip, outliers
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize import fake_quant
from edgeclip.quantize.fake_quant import FakeQuantLinear
from edgeclip.quantize.sensitivity import (
    all_directions,
    choose_float_layers,
    embed,
    fake_quantized,
    mean_cosine,
    ranking_directions,
    sensitivities,
    sensitivity,
)

Case = tuple[nn.Module, list[Tensor], list[str]]


def case(model: Clip, kind: type[nn.Module]) -> Case:
    """A tower, 16 samples in batches, and its layers."""
    generator = torch.Generator().manual_seed(5)
    tower = kind(model).eval()
    if kind is ExportedImageTower:
        batches = list(torch.randn(16, 3, 32, 32, generator=generator).split(4))
    else:
        batches = [torch.randint(0, 300, (4, length), generator=generator) for length in (3, 6, 9, 12)]
        for ids in batches:
            ids[:, -1] = model.config.text.eos_token_id
    layers = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear) and name != PROJECTION]
    return tower, batches, layers


@pytest.fixture(params=[ExportedImageTower, ExportedTextTower])
def twin(varied: Clip, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Its outliers cost each layer less than a hundredth: with more, what is true to first order would not be true."""
    monkeypatch.setattr(outliers, "SMALLEST", 8.0)
    monkeypatch.setattr(outliers, "LARGEST", 25.0)
    return case(outlier_twin(varied), request.param)


def loss_without(float_layers: list[str], twin: Case) -> float:
    tower, batches, layers = twin
    exact_NE = embed(tower, batches)
    with fake_quantized(tower, [name for name in layers if name not in float_layers]):
        return 1 - mean_cosine(embed(tower, batches), exact_NE)


def measured_losses(twin: Case) -> dict[str, float]:
    """A pass for each layer."""
    return {name: loss_without([other for other in twin[2] if other != name], twin) for name in twin[2]}


def test_losses_are_those_of_a_pass_for_each_layer(twin: Case):
    tower, batches, layers = twin
    found = sensitivity(tower, {name: FakeQuantLinear(tower.get_submodule(name)) for name in layers}, batches)
    measured = measured_losses(twin)
    worst = sorted(layers, key=lambda name: -measured[name])[: len(layers) // 4]
    for name in worst:  # to first order, from 96 random directions
        assert found[name] == pytest.approx(measured[name], rel=0.5)


def test_what_the_ranking_changes_is_that_of_a_pass_for_each_layer(twin: Case):
    tower, batches, layers = twin
    exact_NE = embed(tower, batches)
    generator = torch.Generator().manual_seed(1)
    others_ME = functional.normalize(torch.randn(40, exact_NE.shape[1], generator=generator), dim=-1)
    int8 = {name: FakeQuantLinear(tower.get_submodule(name)) for name in layers}
    measures = [all_directions, ranking_directions(others_ME, 20.0)]
    cosine, ranking = sensitivities(tower, int8, batches, measures)
    assert cosine == sensitivity(tower, int8, batches)
    assert sensitivities(tower, int8, batches, measures) == [cosine, ranking]
    exact = (20 * exact_NE @ others_ME.T).log_softmax(dim=-1)

    def divergence(name: str) -> float:
        with fake_quantized(tower, [name]):
            found = (20 * embed(tower, batches) @ others_ME.T).log_softmax(dim=-1)
        return (exact.exp() * (exact - found)).sum(dim=-1).mean().item()

    measured = {name: divergence(name) for name in layers}
    worst = sorted(layers, key=lambda name: -measured[name])[: len(layers) // 4]
    for name in worst:
        assert ranking[name] == pytest.approx(measured[name], rel=0.5)


def test_the_choice_is_as_good_as_with_a_pass_for_each_layer(twin: Case):
    tower, batches, layers = twin
    measured, exact_NE = measured_losses(twin), embed(tower, batches)
    for count in range(1, len(layers) // 4 + 1):
        chosen = choose_float_layers(tower, layers, batches, exact_NE, min_cosine=1.1, at_most=count)
        old = sorted(layers, key=lambda name: -measured[name])[:count]
        assert len(chosen) == count
        assert loss_without(chosen, twin) < 1.1 * loss_without(old, twin)


def test_no_more_layers_stay_in_float_than_are_needed(twin: Case):
    tower, batches, layers = twin
    exact_NE = embed(tower, batches)

    def chosen(min_cosine: float) -> list[str]:
        return choose_float_layers(tower, layers, batches, exact_NE, min_cosine=min_cosine, at_most=8)

    order = chosen(1.1)
    assert len(order) == 8
    assert chosen(0.0) == []
    losses = [loss_without(order[:count], twin) for count in range(9)]
    for count in range(1, 8):
        if losses[count] < min(losses[:count]):
            enough = 1 - losses[count] - 1e-6
            assert chosen(enough) == order[:count]


def test_a_layer_that_int8_ruins_is_found_and_left_in_float(varied: Clip):
    tower, batches, layers = case(varied, ExportedImageTower)
    assert isinstance(tower, ExportedImageTower)
    with torch.no_grad():  # one unit of one MLP is always on and huge: no exact rewrite can move its size
        mlp = tower.blocks[0].mlp
        mlp.fc1.weight[7], mlp.fc1.bias[7] = 0, 4000.0
        mlp.fc2.weight[:, 7] = 0
    ruined = loss_without([], (tower, batches, layers))
    left = choose_float_layers(tower, layers, batches, embed(tower, batches), min_cosine=1 - ruined / 2, at_most=2)
    assert left == ["blocks.0.mlp.fc2"]
    assert loss_without(left, (tower, batches, layers)) <= ruined / 2


def test_a_weight_is_rounded_once_however_many_passes_there_are(varied: Clip, monkeypatch: pytest.MonkeyPatch):
    tower, batches, layers = case(varied, ExportedImageTower)
    rounded = []
    monkeypatch.setattr(fake_quant, "round_weight", lambda weight, *limit: rounded.append(1) or weight)
    choose_float_layers(tower, layers, batches, embed(tower, batches), min_cosine=1.1, at_most=8)
    assert len(rounded) == len(layers)


@torch.no_grad()
@pytest.mark.parametrize("kind", [ExportedImageTower, ExportedTextTower])
def test_a_batch_gives_what_each_sample_gives_alone(varied: Clip, kind: type[nn.Module]):
    """In double precision, where no value lies so near the border of two levels that the batch decides it."""
    tower, batches, layers = case(varied, kind)
    tower = tower.double()
    if kind is ExportedImageTower:
        batches = [batch.double() for batch in batches]
    with fake_quantized(tower, layers):
        for batch in batches:
            alone = embed(tower, list(batch.split(1)))
            torch.testing.assert_close(tower(batch), alone, atol=1e-12, rtol=0)


@torch.no_grad()
def test_layers_come_back_after_a_measurement(varied: Clip):
    tower, batches, layers = case(varied, ExportedImageTower)
    before = embed(tower, batches)
    with fake_quantized(tower, layers):
        assert not torch.equal(embed(tower, batches), before)
    assert torch.equal(embed(tower, batches), before)
    assert torch.allclose(before.norm(dim=1), torch.ones(len(before)))
