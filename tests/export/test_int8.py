"""The int8 graphs: what is int8 in them, and that they compute what the scheme says."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from edgeclip.export.graph import write_image_graph, write_text_graph
from edgeclip.export.int8 import PROJECTION, Int8Tower
from edgeclip.export.stored import round_what_is_stored
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model import Clip
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.scheme import FINE_LIMIT, PAIR_LIMIT, TABLE_LIMIT, WEIGHT_LIMIT
from edgeclip.quantize.sensitivity import fake_quantized
from tests.byte_images import PREPROCESS, byte_images

PIXELS = PixelBytes.of(PREPROCESS, 3 * 16 * 16)


@pytest.fixture
def towers(varied: Clip) -> tuple[ExportedImageTower, ExportedTextTower]:
    return ExportedImageTower(varied).eval(), ExportedTextTower(varied).eval()


@pytest.fixture
def graphs(towers: tuple[ExportedImageTower, ExportedTextTower], tmp_path: Path) -> tuple[Path, Path]:
    image_tower, text_tower = towers
    write_image_graph(image_tower, tmp_path / "v.onnx")
    write_text_graph(text_tower, tmp_path / "t.onnx")
    return tmp_path / "v.onnx", tmp_path / "t.onnx"


def run(path: Path, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def layers(tower: nn.Module) -> list[str]:
    return [name for name, module in tower.named_modules() if isinstance(module, nn.Linear) and name != PROJECTION]


def pixels_of(tower: nn.Module) -> PixelBytes | None:
    return PIXELS if isinstance(tower, ExportedImageTower) else None


def integer_products(path: Path) -> int:
    return sum(node.op_type == "MatMulInteger" for node in onnx.load_model(path).graph.node)


@torch.no_grad()
@pytest.mark.slow
def test_the_graphs_compute_what_fake_quantized_towers_compute(towers, graphs):
    image_tower, text_tower = towers
    samples = (byte_images(1), torch.tensor([[5, 6, 7, text_tower.tower.config.eos_token_id]]))
    for tower, graph, sample in zip((image_tower, text_tower), graphs, samples, strict=True):
        target = graph.with_suffix(".q.onnx")
        pixels = pixels_of(tower)
        Int8Tower(graph, pixels).write(target)
        round_what_is_stored(tower)
        with fake_quantized(tower, layers(tower), pixels):
            expected = tower(sample).numpy()
        # A value at the border of two levels may fall either way; the float graph is many times further away.
        np.testing.assert_allclose(run(target, sample.numpy()), expected, atol=1e-3)
        assert np.abs(run(graph, sample.numpy()) - expected).max() > 4e-3


@pytest.mark.slow
def test_what_is_int8_and_what_is_not(towers, graphs):
    image_tower, text_tower = towers
    for tower, graph in zip((image_tower, text_tower), graphs, strict=True):
        target = graph.with_suffix(".q.onnx")
        Int8Tower(graph, pixels_of(tower)).write(target)
        assert integer_products(target) == len(layers(tower))
        stored = {t.name: t for t in onnx.load_model(target).graph.initializer}
        multiplied = [
            t for name, t in stored.items() if name.endswith("_quantized") and t.data_type == TensorProto.INT8
        ]
        steps = [numpy_helper.to_array(t).astype(int) for t in multiplied]
        assert max(np.abs(layer_IO).max() for layer_IO in steps) == WEIGHT_LIMIT
        pairs = [layer_IO[0 : len(layer_IO) // 2 * 2 : 2] + layer_IO[1::2] for layer_IO in steps]
        assert max(np.abs(pairs_PO).max() for pairs_PO in pairs) == PAIR_LIMIT
        kept = {t.data_type: numpy_helper.to_array(t) for name, t in stored.items() if name.endswith("_integers")}
        limits = {TensorProto.INT16: FINE_LIMIT} | ({TensorProto.INT8: TABLE_LIMIT} if tower is text_tower else {})
        assert {kind: np.abs(integers.astype(int)).max() for kind, integers in kept.items()} == limits
        floats = [t for t in stored.values() if t.data_type == TensorProto.FLOAT]
        assert max(numpy_helper.to_array(t).size for t in floats) < 900, [t.name for t in floats]


@torch.no_grad()
@pytest.mark.slow
def test_named_layers_stay_in_float(towers, graphs):
    image_tower, _ = towers
    target = graphs[0].with_suffix(".q.onnx")
    Int8Tower(graphs[0], PIXELS).write(target, float_layers=["blocks.0.mlp.fc2", "last.key_value"])
    assert integer_products(target) == len(layers(image_tower)) - 2
    Int8Tower(graphs[0], PIXELS).write(target, float_layers=layers(image_tower))
    assert integer_products(target) == 0
    round_what_is_stored(image_tower)
    pixel_values = torch.randn(2, 3, 32, 32)
    np.testing.assert_allclose(run(target, pixel_values.numpy()), image_tower(pixel_values).numpy(), atol=2e-6)


@pytest.mark.slow
def test_no_trace_of_the_machine_that_exported(graphs):
    target = graphs[0].with_suffix(".q.onnx")
    Int8Tower(graphs[0], PIXELS).write(target)
    assert b"site-packages" not in target.read_bytes()
