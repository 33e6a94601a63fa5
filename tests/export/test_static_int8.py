"""Activations rounded by ranges measured beforehand: the form that runtimes fuse, and what it computes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from edgeclip.checkpoint import Checkpoint
from edgeclip.export.float_graphs import FloatGraphs, write_float_graphs
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.samples import Samples
from edgeclip.export.static_int8 import Range, static_nodes
from edgeclip.quantize.scheme import in_steps, weight_step
from edgeclip.tune.layers import input_ranges


@pytest.fixture(scope="module")
def floats(checkpoint: Checkpoint, few_pairs: Samples, tmp_path_factory: pytest.TempPathFactory) -> FloatGraphs:
    folder = tmp_path_factory.mktemp("floats")
    (folder / "onnx").mkdir()
    return write_float_graphs(checkpoint, folder, calibrate=few_pairs.calibrate)


@pytest.mark.parametrize(
    ("extremes", "step", "zero"),
    [
        ((-0.2, 5.0), 5.2 / 255, np.uint8(10)),  # 0.2 / 0.02039 = 9.8
        ((0.0, 5.1), 0.02, np.uint8(0)),
        ((-2.54, 1.3), 0.02, np.int8(0)),
        ((-1.0, -0.5), 1 / 255, np.uint8(255)),
        ((0.0, 0.0), 1.0, np.int8(0)),
    ],
    ids=["as of GELU", "of one sign", "nearly symmetric", "without zero", "of zeros"],
)
def test_an_input_is_rounded_by_its_range(extremes: Range, step: float, zero: np.generic):
    nodes = static_nodes(helper.make_node("MatMul", ["x", "w"], ["y"]), extremes, set())
    constants = {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in nodes if not node.input}
    assert constants["x_scale"] == pytest.approx(step, rel=1e-6)
    assert (constants["x_zero_point"].dtype, constants["x_zero_point"]) == (zero.dtype, zero)


def test_a_layer_computes_what_its_rounded_operands_do(tmp_path: Path):
    """By hand, in float64: levels of the input, clipped to its range, times levels of the weight."""
    rng = np.random.default_rng(0)
    weight_OI, bias_O = rng.normal(size=(6, 8)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    steps_O, x = weight_step(weight_OI), rng.normal(size=(4, 8)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    graph = helper.make_graph(
        list(static_nodes(node, (-0.5, 2.0), set())),
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 6])],
        [
            numpy_helper.from_array(in_steps(weight_OI, steps_O).T.astype(np.int8), "w_quantized"),
            numpy_helper.from_array(steps_O, "w_scale"),
            numpy_helper.from_array(bias_O, "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    step, zero = 2.5 / 255, 51
    rounded = (np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step
    expected = rounded @ (in_steps(weight_OI, steps_O) * steps_O[:, None]).astype(np.float64).T + bias_O
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=1e-4)


@torch.no_grad()
def test_towers_are_near_those_in_float_and_have_no_dynamic_node(
    floats: FloatGraphs, few_pairs: Samples, tmp_path: Path
):
    ranges = input_ranges(floats, few_pairs.calibrate)
    config = floats.checkpoint.config
    ids = floats.checkpoint.tokenizer.token_ids(["a red ball"])
    pixels = np.random.default_rng(0).normal(size=(2, 3, config.vision.image_size, config.vision.image_size))
    for tower, pixel_bytes, batch in (
        ("image", floats.pixels, pixels.astype(np.float32)),
        ("text", None, np.array(ids, np.int64)),
    ):
        source = getattr(floats, tower).graph
        Int8Tower(source, pixel_bytes).write(tmp_path / tower, ranges=ranges[tower])
        model = onnx.load_model(tmp_path / tower)
        onnx.checker.check_model(model)
        kinds = {node.op_type for node in model.graph.node}
        assert "QuantizeLinear" in kinds
        assert not {"DynamicQuantizeLinear", "MatMulInteger"} & kinds
        ours, exact = (
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
                None, {model.graph.input[0].name: batch}
            )[0]
            for path in (tmp_path / tower, source)
        )
        assert 0.99 < (ours * exact).sum(axis=1).min() < 0.999999
