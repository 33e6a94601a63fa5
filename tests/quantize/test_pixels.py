"""Patches are multiplied as the bytes that they were: nothing is rounded but the weights."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ConfigError
from edgeclip.export.int8 import Int8Tower
from edgeclip.image import normalize
from edgeclip.quantize.pixels import FakeQuantPatches, PixelBytes

PREPROCESSES = {
    "CLIP": PreprocessConfig(shortest_edge=4, crop_size=(4, 4)),
    "SigLIP": PreprocessConfig(shortest_edge=4, crop_size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "bytes": PreprocessConfig(
        shortest_edge=4, crop_size=(4, 4), rescale_factor=1, mean=(123.7, 116.8, 103.9), std=(58.4, 57.1, 57.4)
    ),
    "backwards": PreprocessConfig(shortest_edge=4, crop_size=(4, 4), rescale_factor=-1 / 255, mean=(0, 0, 0)),
}


@pytest.fixture(params=PREPROCESSES)
def preprocess(request: pytest.FixtureRequest) -> PreprocessConfig:
    return PREPROCESSES[request.param]


@pytest.fixture
def pictures() -> np.ndarray:
    """(5, 4, 4, 3) with every byte."""
    return np.arange(5 * 4 * 4 * 3, dtype=np.int64).reshape(5, 4, 4, 3).astype(np.uint8)


def patches_of(pictures: np.ndarray, preprocess: PreprocessConfig) -> torch.Tensor:
    """(B, 1, I): each picture one patch, channel first."""
    return torch.from_numpy(normalize(pictures, preprocess)).reshape(len(pictures), 1, -1)


def test_every_byte_is_found_again(preprocess: PreprocessConfig, pictures: np.ndarray):
    pixels, patches = PixelBytes.of(preprocess, 48), patches_of(pictures, preprocess)
    expected = pictures.transpose(0, 3, 1, 2).reshape(len(pictures), 1, -1)
    np.testing.assert_array_equal(((patches - pixels.zero) / pixels.step).round().numpy(), expected)
    torch.testing.assert_close(pixels.round(patches), patches, atol=2e-5 * float(pixels.step.abs().max() * 255), rtol=0)


def test_what_no_byte_makes_is_the_nearest(preprocess: PreprocessConfig):
    pixels = PixelBytes.of(preprocess, 48)
    for byte, expected in ((-40.0, 0), (300.0, 255), (17.4, 17)):
        rounded = pixels.round(pixels.step * byte + pixels.zero)
        torch.testing.assert_close(rounded, pixels.step * expected + pixels.zero, atol=1e-4, rtol=1e-5)


def test_a_preprocessing_that_makes_the_same_of_every_byte_is_refused():
    with pytest.raises(ConfigError, match="rescale_factor 0; expected 1/255"):
        PixelBytes.of(PreprocessConfig(shortest_edge=4, crop_size=(4, 4), rescale_factor=0), 48)


def test_the_graph_multiplies_bytes_exactly(preprocess: PreprocessConfig, pictures: np.ndarray, tmp_path: Path):
    """With whole numbers for weights nothing is left to be rounded: it is the float product, whatever the range."""
    torch.manual_seed(0)
    pixels, linear = PixelBytes.of(preprocess, 48), torch.nn.Linear(48, 7, bias=False)
    steps = torch.randint(-60, 61, (7, 48)).float()
    steps[:, ::2], steps[:, 1::2] = steps[:, ::2].clamp(max=60), steps[:, 1::2].clamp(max=60)
    steps[:, 4] = 127.0
    steps[:, 5] = 1.0
    with torch.no_grad():
        linear.weight.copy_(steps / 1000 / pixels.step)
    constants = {"w": linear.weight.detach().numpy().T.copy(), "one patch": np.array([-1, 1, 48])}
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "one patch"], ["p"]), helper.make_node("MatMul", ["p", "w"], ["y"])],
        "patches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, 7])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    graph.node[1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'tower.patch_embedding', 'matmul']")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save_model(model, tmp_path / "float.onnx")
    Int8Tower(tmp_path / "float.onnx", pixels).write(tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), providers=["CPUExecutionProvider"])
    patches = patches_of(pictures, preprocess)
    exact = linear(patches).detach().numpy()
    pixel_values = patches.numpy().reshape(-1, 3, 4, 4)
    (found,) = session.run(None, {"x": pixel_values})
    tolerance = 1e-5 * float((steps.abs().sum(dim=1) * 255 / 1000).max())
    np.testing.assert_allclose(found, exact, atol=tolerance)
    np.testing.assert_allclose(FakeQuantPatches(linear, pixels)(patches).detach().numpy(), exact, atol=tolerance)
    alone = [session.run(None, {"x": picture[None]})[0][0] for picture in pixel_values]
    np.testing.assert_array_equal(found, alone)  # whatever is beside it


def test_gradients_pass_to_the_weight_as_it_is():
    pixels = PixelBytes.of(PREPROCESSES["CLIP"], 48)
    weight = torch.randn(7, 48, requires_grad=True)
    (pixels.fake_quant_weight(weight) * 3).sum().backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 3))
