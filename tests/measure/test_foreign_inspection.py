"""What other programs' graphs compute, as `inspect` tells it; ONNX's own package is the oracle of sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from edgeclip import cpu
from edgeclip.measure.foreign_inspection import ForeignInspection, inspect_foreign
from edgeclip.runtime.arithmetic import precision, products, wide_pairs
from edgeclip.runtime.foreign import find_foreign
from edgeclip.runtime.onnx_file import OnnxFile, read_onnx

K, N = 64, 32


def float_graph(path: Path, weight: np.ndarray) -> Path:
    values = [helper.make_tensor_value_info(*of) for of in (("x", TensorProto.FLOAT, ["n", K]), ("y", 1, ["n", N]))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = iter([{"x": np.random.default_rng(1).normal(size=(4, K)).astype(np.float32)}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(K, N)).astype(np.float32)


def made(source: Path, how: str) -> OnnxFile:
    target = source.with_name(f"{how}.onnx")
    if how == "dynamic":
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
    elif how == "dynamic, uint8":
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
    elif how in ("qdq", "qoperator"):
        format_ = QuantFormat.QDQ if how == "qdq" else QuantFormat.QOperator
        quantize_static(source, target, Reader(), quant_format=format_, weight_type=QuantType.QInt8)
    elif how == "4 bits":
        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=4, block_size=32, accuracy_level=4)
        quantizer.process()
        onnx.save_model(quantizer.model.model, target)
    else:  # stored as int8 and made float again
        graph = onnx.load(source)
        (tensor,) = graph.graph.initializer
        rounded = np.rint(numpy_helper.to_array(tensor) * 20).astype(np.int8)
        graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(rounded, "w8"))
        graph.graph.initializer.append(numpy_helper.from_array(np.float32(0.05), "s"))
        graph.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w8", "s"], ["w"]))
        onnx.save_model(graph, target)
    return read_onnx(target)


@pytest.mark.parametrize(
    ("how", "label", "kind"),
    [
        ("dynamic", "int8", "integer"),
        ("dynamic, uint8", "int8", "integer"),
        ("qdq", "int8", "integer"),
        ("qoperator", "int8", "integer"),
        ("4 bits", "4 bits weights", "float"),
        ("stored", "int8 weights", "float"),
    ],
)
def test_bytes_on_both_sides_or_weights_that_are_only_stored_so(
    tmp_path: Path, weight: np.ndarray, how: str, label: str, kind: str
):
    graph = made(float_graph(tmp_path / "float.onnx", weight), how)
    (product,) = products(graph)
    assert (product.label, product.kind, product.count) == (label, kind, K * N)
    assert precision(graph) == label
    assert product.bytes == K * N // (2 if how == "4 bits" else 1)
    assert product.rounds_blocks == (how == "4 bits")


def test_float_products(tmp_path: Path, weight: np.ndarray):
    for dtype, label in ((np.float32, "fp32"), (np.float16, "fp16")):
        (product,) = products(read_onnx(float_graph(tmp_path / "a.onnx", weight.astype(dtype))))
        assert (product.label, product.bytes) == (label, weight.astype(dtype).nbytes)


def test_pairs_that_do_not_fit_in_16_bits(tmp_path: Path):
    """Counted with plain loops, and found by the saturating sum itself."""
    rng = np.random.default_rng(3)
    integers = rng.integers(-128, 128, (K, N)).astype(np.int8)
    path = float_graph(tmp_path / "float.onnx", integers.astype(np.float32))
    graph = onnx.load(path)
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(integers, "w"))
    graph.graph.node[0].op_type = "MatMulInteger"
    onnx.save_model(graph, path)
    expected = 0
    for column in integers.T.tolist():
        for first, second in zip(column[::2], column[1::2], strict=True):
            expected += not -(2**15) <= 255 * (first + second) < 2**15
    (product,) = products(read_onnx(path))
    assert 0 < expected < K // 2 * N
    assert wide_pairs(product) == (expected, K // 2 * N)
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(integers.astype(np.int16).astype(np.uint8), "w"))
    onnx.save_model(graph, path)
    (product,) = products(read_onnx(path))
    assert wide_pairs(product) == (0, K // 2 * N)


def inspected(folder: Path, asked: str | None = None) -> ForeignInspection:
    layout = find_foreign(folder)
    assert layout is not None
    return inspect_foreign(folder, layout, asked)


def test_of_a_folder(foreign_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    folder = foreign_folders["transformers.js"]
    image, text = inspected(folder).towers
    graph = onnx.load(folder / image.graph)
    matrices = [tensor for tensor in graph.graph.initializer if len(tensor.dims) == 2 and "position" not in tensor.name]
    (of_matmul,) = (some for some in image.products if some.op == "MatMul")
    assert of_matmul.weights == sum(np.prod(tensor.dims) for tensor in matrices)
    assert (image.precision, image.others, image.pairs, text.kind) == ("fp32", ["fp16", "q8"], 0, "text")
    for flags, saturates in (({"avx2"}, True), ({"avx2", "avx512_vnni"}, False)):
        monkeypatch.setattr(cpu, "cpu_flags", lambda flags=flags: flags)
        found = inspected(folder, "q8")
        assert found.towers[0].wide_pairs > 0
        assert found.saturates == saturates
    assert inspected(foreign_folders["immich"]).towers[0].batch == 1


def test_on_the_command_line(
    edgeclip_here: Callable[..., CompletedProcess[str]], foreign_folders: dict[str, Path], mistake: Callable[..., str]
):
    folder = foreign_folders["transformers.js"]
    shown = edgeclip_here("inspect", folder, "--precision", "q8").stdout
    for part in (
        "layout      transformers.js",
        "MatMulInteger",
        "saturation",
        "also there: fp32, fp16",
        "logit scale 4.20",
    ):
        assert part in shown
    told = json.loads(edgeclip_here("inspect", foreign_folders["image"], "--json").stdout)
    assert (told["layout"], told["logit_scale"], len(told["towers"])) == ("fastembed", None, 1)
    assert "leave out --precision" in mistake("inspect", "builtin:tabletop", "--precision", "q8")


def test_it_can_be_evaluated(edgeclip_here: Callable[..., CompletedProcess[str]], foreign_folders: dict[str, Path]):
    done = edgeclip_here("evaluate", foreign_folders["transformers.js"], "--samples", "6", "--workers", "0", "--json")
    assert json.loads(done.stdout)["images"] == 6, done.stderr


def test_graphs_beside_a_checkpoint_are_not_what_is_inspected(
    edgeclip_here: Callable[..., CompletedProcess[str]], mini_checkpoint: Path, copied: Callable[[str], Path]
):
    folder = copied("transformers.js")
    for path in mini_checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert "parameters" in edgeclip_here("inspect", folder).stdout
