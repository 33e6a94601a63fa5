"""What quantization-aware training computes is what the device computes."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgeclip.export.graph import write_image_graph, write_text_graph
from edgeclip.export.int8 import PROJECTION, Int8Tower
from edgeclip.export.stored import round_what_is_stored
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.scale_pairs import pairs_of_clip
from edgeclip.quantize.sensitivity import fake_quantized
from tests.byte_images import PREPROCESS, byte_images

LENGTHS = (3, 6, 9, 12)
PIXELS = PixelBytes.of(PREPROCESS, 3 * 16 * 16)


@pytest.fixture
def images() -> torch.Tensor:
    return byte_images(4)


@pytest.fixture
def padded(varied: Clip) -> torch.Tensor:
    """Four texts in one batch; what follows their ends is not all the same."""
    ids = torch.randint(0, 300, (4, 16), generator=torch.Generator().manual_seed(5))
    for row, length in zip(ids, LENGTHS, strict=True):
        row[length - 1 :: 2] = varied.config.text.eos_token_id
    return ids


@torch.no_grad()
def test_it_is_the_exported_towers_with_every_layer_int8(varied: Clip, images: torch.Tensor, padded: torch.Tensor):
    deployed = DeployedClip(varied, PREPROCESS)
    inputs = {
        ExportedImageTower: list(images[:, None]),
        ExportedTextTower: [ids[None, :n] for ids, n in zip(padded, LENGTHS, strict=True)],
    }
    found = {ExportedImageTower: deployed.encode_image(images), ExportedTextTower: deployed.encode_text(padded)}
    for kind, samples in inputs.items():
        tower = kind(copy.deepcopy(varied)).eval()
        layers = [n for n, m in tower.named_modules() if isinstance(m, torch.nn.Linear) and n != PROJECTION]
        round_what_is_stored(tower)
        exact = torch.cat([tower(sample) for sample in samples])
        with fake_quantized(tower, layers, PIXELS if kind is ExportedImageTower else None):
            expected = torch.cat([tower(sample) for sample in samples])
        torch.testing.assert_close(found[kind], expected, atol=1e-5, rtol=0)
        assert (exact - expected).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.slow
def test_it_is_the_int8_graphs(varied: Clip, images: torch.Tensor, padded: torch.Tensor, tmp_path: Path):
    deployed = DeployedClip(varied, PREPROCESS)
    write_image_graph(ExportedImageTower(varied).eval(), tmp_path / "v")
    write_text_graph(ExportedTextTower(varied).eval(), tmp_path / "t")
    for name, batch, encode in (("v", images, deployed.encode_image), ("t", padded, deployed.encode_text)):
        Int8Tower(tmp_path / name, PIXELS if name == "v" else None).write(tmp_path / f"{name}8")
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}8"), providers=["CPUExecutionProvider"])
        for row, length in zip(batch, LENGTHS if name == "t" else [32] * 4, strict=True):
            (embeds,) = session.run(None, {session.get_inputs()[0].name: row[None, ..., :length].numpy()})
            # A value at the border of two levels may fall either way.
            np.testing.assert_allclose(encode(row[None])[0], embeds[0], atol=1e-3)


@torch.no_grad()
def test_a_padded_batch_gives_what_each_text_gives_alone(varied: Clip, padded: torch.Tensor):
    """In double precision, where no value lies so near the border of two levels that the batch decides it."""
    deployed = DeployedClip(varied.double(), PREPROCESS)
    together = deployed.encode_text(padded)
    for row, ids, length in zip(together, padded, LENGTHS, strict=True):
        torch.testing.assert_close(row, deployed.encode_text(ids[None, :length])[0], atol=1e-12, rtol=0)


def test_every_parameter_but_the_scale_gets_a_gradient(varied: Clip, images: torch.Tensor, padded: torch.Tensor):
    deployed = DeployedClip(varied, PREPROCESS)
    (deployed.encode_image(images) @ deployed.encode_text(padded).T).trace().backward()
    without = [name for name, p in varied.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["log_logit_scale"]


@torch.no_grad()
def test_a_whole_model_is_equalized_in_place(varied: Clip, images: torch.Tensor, padded: torch.Tensor):
    twin = outlier_twin(varied)

    def run() -> None:
        for image, ids, length in zip(images, padded, LENGTHS, strict=True):
            twin(image[None], ids[None, :length])

    def lost() -> float:
        return (
            1
            - (DeployedClip(twin, PREPROCESS).encode_image(images) * varied.encode_image(images))
            .sum(dim=1)
            .mean()
            .item()
        )

    damaged = lost()
    assert equalize(pairs_of_clip(twin), run)
    torch.testing.assert_close(twin(images, padded), varied(images, padded), atol=1e-4, rtol=1e-4)
    assert lost() < damaged / 4
