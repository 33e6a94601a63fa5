"""4-bit blocks and float16 storage: by hand, and beside the float graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeclip.checkpoint import Checkpoint
from edgeclip.export.float_graphs import write_float_graphs
from edgeclip.export.int4 import quantize_blocks, write_int4
from edgeclip.export.stored_fp16 import write_fp16
from edgeclip.manifest import GRAPHS
from edgeclip.runtime.session import open_graph
from tests.once import MadeOnce


@pytest.fixture(scope="module")
def float_graphs(checkpoint: Checkpoint, once: MadeOnce) -> list[Path]:
    def write(folder: Path) -> None:
        (folder / "onnx").mkdir()
        write_float_graphs(checkpoint, folder)

    folder = once("float-graphs", write)
    return [folder / name for name in GRAPHS["fp32"]]


def inputs(graph: Path, checkpoint: Checkpoint) -> np.ndarray:
    if "vision" in graph.name:
        return np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    return np.array(checkpoint.tokenizer.token_ids(["two blue boxes"]))


def run(graph: Path, batch: np.ndarray) -> np.ndarray:
    session = open_graph(graph, 1)
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def test_a_block_of_4_bits_by_hand():
    row = np.zeros((1, 40), np.float32)
    row[0, :3], row[0, 32] = (-4.0, 1.0, 3.9), 7.0
    packed, scales = quantize_blocks(row)
    assert scales.tolist() == [[0.5, -0.875]]  # -4 and 7 become -8 steps
    first = packed[0, 0]
    assert [first[0] & 15, first[0] >> 4, first[1] & 15] == [0, 10, 15]  # 3.9 is beyond the last of 7 steps
    assert packed[0, 1, 0] == 0 | 8 << 4


def test_the_runtime_multiplies_by_the_rounded_weight(tmp_path: Path):
    rng = np.random.default_rng(0)
    weight_IO, x = rng.standard_normal((70, 8)).astype(np.float32), rng.standard_normal((1, 70)).astype(np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[1, 70] x) => (float[1, 8] y) { y = MatMul(x, w) }'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight_IO, "w"))
    onnx.save_model(model, tmp_path / "float.onnx")
    write_int4(tmp_path / "float.onnx", tmp_path / "int4.onnx")
    packed, scales = quantize_blocks(weight_IO.T)
    steps = np.stack([packed & 15, packed >> 4], axis=-1).reshape(8, 3, 32).astype(np.float32) - 8
    rounded_IO = (steps * scales[..., None]).reshape(8, 96)[:, :70].T
    assert np.abs(rounded_IO - weight_IO).max() <= np.abs(weight_IO).max() / 8
    np.testing.assert_allclose(run(tmp_path / "int4.onnx", x), x @ rounded_IO, atol=0.1)  # 8-bit activations


def test_4_bits_are_half_of_int8_and_near_the_float_graph(
    float_graphs: list[Path], checkpoint: Checkpoint, tmp_path: Path
):
    for graph in float_graphs:
        write_int4(graph, tmp_path / graph.name)
        batch = inputs(graph, checkpoint)
        exact, rounded = run(graph, batch), run(tmp_path / graph.name, batch)
        assert (exact * rounded).sum(axis=1).min() > 0.9  # of widths 24 and 32
        assert not np.array_equal(exact, rounded)
        nodes = [node for node in onnx.load(tmp_path / graph.name).graph.node if node.op_type == "MatMulNBits"]
        assert len(nodes) >= 2 * 4
        assert all({"accuracy_level"} <= {a.name for a in node.attribute} for node in nodes)


def test_float16_storage_halves_the_bytes_and_rounds_the_weights_alone(
    float_graphs: list[Path], checkpoint: Checkpoint, tmp_path: Path
):
    for graph in float_graphs:
        write_fp16(graph, tmp_path / graph.name)
        assert (tmp_path / graph.name).stat().st_size < 0.8 * graph.stat().st_size  # nodes weigh much in a tiny graph
        batch = inputs(graph, checkpoint)
        np.testing.assert_allclose(run(tmp_path / graph.name, batch), run(graph, batch), atol=2e-3)


def test_numbers_beyond_float16_stay_as_they_are(tmp_path: Path):
    weight = np.full((64, 64), 1e6, np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[1, 64] x) => (float[1, 64] y) { y = MatMul(x, w) }'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save_model(model, tmp_path / "float.onnx")
    write_fp16(tmp_path / "float.onnx", tmp_path / "fp16.onnx")
    assert run(tmp_path / "fp16.onnx", np.ones((1, 64), np.float32)).tolist() == [[64e6] * 64]
