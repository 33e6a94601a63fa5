"""Moving channel sizes: exact, helpful where there are outliers, harmless where there are none."""

import pytest
import torch
from torch import Tensor, nn

from edgeclip.export.int8 import PROJECTION
from edgeclip.export.tower_pairs import pairs_of_tower
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.equalize import ScalePair, equalize
from edgeclip.quantize.sensitivity import embed, fake_quantized, mean_cosine


def towers(model: Clip) -> list[tuple[nn.Module, list[Tensor]]]:
    torch.manual_seed(5)
    texts = [torch.randint(0, 300, (1, n)) for n in (3, 6, 9, 12)]
    for ids in texts:
        ids[0, -1] = model.config.text.eos_token_id
    images = list(torch.randn(4, 1, 3, 32, 32))
    return [(ExportedImageTower(model).eval(), images), (ExportedTextTower(model).eval(), texts)]


def layers(tower: nn.Module) -> list[str]:
    return [name for name, module in tower.named_modules() if isinstance(module, nn.Linear) and name != PROJECTION]


def test_equalizing_changes_no_output_and_repairs_the_twin(varied: Clip):
    for tower, samples in towers(outlier_twin(varied)):
        before = embed(tower, samples)

        def rounded(tower: nn.Module = tower, samples: list[Tensor] = samples, before: Tensor = before) -> float:
            with fake_quantized(tower, layers(tower)):
                return 1 - mean_cosine(embed(tower, samples), before)

        damaged = rounded()
        assert equalize(pairs_of_tower(tower), lambda t=tower, s=samples: embed(t, s))
        torch.testing.assert_close(embed(tower, samples), before, atol=1e-5, rtol=0)
        assert rounded() < damaged / 4


def test_the_twin_ends_where_the_original_does(varied: Clip):
    for (tower, samples), (other, _) in zip(towers(varied), towers(outlier_twin(varied)), strict=True):
        for one in (tower, other):
            equalize(pairs_of_tower(one), lambda t=one, s=samples: embed(t, s))
        with fake_quantized(tower, layers(tower)), fake_quantized(other, layers(other)):
            assert mean_cosine(embed(tower, samples), embed(other, samples)) > 0.999


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


def test_samples_of_one_batch_are_seen_as_one_call_each(varied: Clip):
    """So that the same scales are chosen."""
    batched, single = (ExportedImageTower(outlier_twin(varied)).eval() for _ in range(2))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    chosen = equalize(pairs_of_tower(batched), lambda: embed(batched, [images]))
    assert chosen == equalize(pairs_of_tower(single), lambda: embed(single, list(images[:, None])))
    for scaled, expected in zip(batched.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(scaled, expected, atol=1e-5, rtol=1e-5)  # sums differ by the size of a batch


@pytest.mark.parametrize("count", [2, 8])
def test_few_rows_and_outputs_choose_about_as_well_as_all(varied: Clip, monkeypatch: pytest.MonkeyPatch, count: int):
    twin = outlier_twin(varied)
    lost = {}
    for looked_at in (1000, count):
        monkeypatch.setattr("edgeclip.quantize.equalize.ROWS", looked_at)
        monkeypatch.setattr("edgeclip.quantize.equalize.OUTPUTS", looked_at)
        (tower, samples), _ = towers(twin)
        before = embed(tower, samples)
        equalize(pairs_of_tower(tower), lambda t=tower, s=samples: embed(t, s))
        with fake_quantized(tower, layers(tower)):
            lost[looked_at] = 1 - mean_cosine(embed(tower, samples), before)
    assert lost[count] < 1.5 * lost[1000]
