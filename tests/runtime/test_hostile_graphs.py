"""Graphs that reach out of their bundle; also run on the lowest ONNX Runtime that is allowed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeclip.errors import BundleError
from edgeclip.runtime.session import LazySession

WEIGHT = np.arange(4, dtype=np.float32)


def graph_with_weights_in(location: str, path: Path) -> Path:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle"


def test_weights_beside_the_graph_are_read(folder: Path):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    session = LazySession(graph_with_weights_in("w.bin", folder / "a.onnx"), 1)
    np.testing.assert_array_equal(session.run(np.zeros(4, np.float32)), WEIGHT)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "{parent}/secret.bin", "link.bin", "/dev/zero", "a/../../secret.bin"]
)
def test_files_outside_are_not(folder: Path, location: str):
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    session = LazySession(graph_with_weights_in(location.format(parent=folder.parent), folder / "a.onnx"), 1)
    with pytest.raises(BundleError, match="expected an ONNX graph"):
        session.run(np.zeros(4, np.float32))


def test_what_is_no_graph(folder: Path):
    for content in (b"", b"\xff" * 100, onnx.ModelProto().SerializeToString()):
        (folder / "a.onnx").write_bytes(content)
        with pytest.raises(BundleError, match="expected an ONNX graph"):
            LazySession(folder / "a.onnx", 1).run(np.zeros(4, np.float32))
