"""Which layers int8 costs most: those that read huge hidden units, in both towers, the same every time."""

from dataclasses import replace
from pathlib import Path

import torch

from edgeclip.checkpoint import Checkpoint
from edgeclip.export.float_graphs import FloatGraphs, FloatTower
from edgeclip.export.samples import Samples
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip
from edgeclip.model.outliers import constant_units_twin
from edgeclip.tune.layers import layer_sensitivity


def floats_of(checkpoint: Checkpoint, model: Clip) -> FloatGraphs:
    towers = ExportedImageTower(model).eval(), ExportedTextTower(model).eval()
    return FloatGraphs(replace(checkpoint, model=model), *(FloatTower(tower, Path(), {}) for tower in towers))


def test_the_twin_computes_the_same(varied: Clip):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        same = varied.encode_image(images), constant_units_twin(varied).encode_image(images)
    torch.testing.assert_close(*same, atol=2e-4, rtol=0)


def test_layers_that_read_huge_units_come_first(checkpoint: Checkpoint, varied: Clip, few_pairs: Samples):
    floats = floats_of(checkpoint, constant_units_twin(varied))
    found = layer_sensitivity(floats, few_pairs.calibrate.first(4))
    assert found == layer_sensitivity(floats, few_pairs.calibrate.first(4))
    usual = layer_sensitivity(floats_of(checkpoint, varied), few_pairs.calibrate.first(4))
    for tower, losses in found.items():
        cosines = [loss.cosine for loss in losses.values()]
        assert cosines == sorted(cosines, reverse=True)
        assert next(iter(losses)).endswith("mlp.fc2")
        for measure in ("cosine", "ranking"):
            twin, plain = (getattr(found["last.mlp.fc2"], measure) for found in (losses, usual[tower]))
            assert twin > 5 * plain > 0
        assert losses.keys() == usual[tower].keys()
