"""The int8 arithmetic by hand, and against ONNX Runtime's own operators on this processor."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from edgeclip.quantize.fake_quant import FakeQuantLinear, activation_range, fake_quant_activation, fake_quant_weight
from edgeclip.quantize.scheme import ROW_LIMIT, WEIGHT_LIMIT, quantize_rows, weight_scale


def run(nodes: list, feed: dict, outputs: list[str]) -> list[np.ndarray]:
    kinds = {np.float32: TensorProto.FLOAT, np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
    inputs = [helper.make_tensor_value_info(k, kinds[v.dtype.type], v.shape) for k, v in feed.items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]  # the runtime infers their types
    graph = helper.make_graph(nodes, "g", inputs, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def test_rows_by_hand():
    weight = np.array([[1.0, -2.0, 0.5], [0, 0, 0], [0.03, 0.01, -0.02]], np.float32)
    rows, scale = quantize_rows(weight)
    np.testing.assert_array_equal(rows, [[32, -64, 16], [0, 0, 0], [64, 21, -43]])
    np.testing.assert_allclose(scale, [2 / 64, 1, 0.03 / 64], rtol=1e-6)
    assert np.abs(rows * scale[:, None] - weight).max() <= scale.max() / 2
    assert quantize_rows(weight, ROW_LIMIT)[0].max() == 127


def range_of(low: float, high: float) -> tuple[float, int]:
    scale, zero_point = activation_range(torch.tensor(low, dtype=torch.float64), torch.tensor(high))
    return scale.item(), int(zero_point)


@pytest.mark.parametrize(("low", "high", "expected"), [(-1, 3, (4 / 255, 64)), (2, 5, (5 / 255, 0)), (0, 0, (1, 0))])
def test_activation_ranges_by_hand(low: float, high: float, expected: tuple[float, int]):
    assert range_of(low, high) == pytest.approx(expected)


def test_activations_equal_the_operator_of_the_runtime():
    x = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32) * 3 + 1
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    q, scale, zero = run([node], {"x": x}, ["q", "scale", "zero"])
    assert (float(scale), int(zero)) == pytest.approx(range_of(float(x.min()), float(x.max())))
    expected = (q.astype(np.float32) - zero) * scale
    np.testing.assert_allclose(fake_quant_activation(torch.from_numpy(x)).numpy(), expected, atol=float(scale) * 1e-3)


def test_the_largest_products_are_exact_on_this_processor():
    """With 8-bit weights, AVX2 without VNNI would saturate here: 2 * 255 * 128 > 32767."""
    a = np.full((5, 64), 255, np.uint8)
    b = np.full((64, 9), WEIGHT_LIMIT, np.int8)
    b[:, ::2] = -WEIGHT_LIMIT
    (product,) = run([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], {"a": a, "b": b}, ["y"])
    np.testing.assert_array_equal(product, a.astype(np.int32) @ b.astype(np.int32))
    assert 2 * 255 * WEIGHT_LIMIT <= 2**15 - 1


def test_a_fake_quantized_layer_equals_the_integer_one():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(32, 10), torch.randn(6, 32)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    q, scale, zero = run([node], {"x": x.numpy()}, ["q", "scale", "zero"])
    rows, steps = quantize_rows(linear.weight.detach().numpy())
    sums = (q.astype(np.int32) - int(zero)) @ rows.astype(np.int32).T
    expected = sums * (scale * steps) + linear.bias.detach().numpy()
    np.testing.assert_allclose(FakeQuantLinear(linear)(x[None])[0].detach().numpy(), expected, atol=2e-5)


def test_rounding_twice_changes_nothing_and_gradients_pass():
    weight = torch.randn(8, 16, requires_grad=True)
    once = fake_quant_weight(weight)
    torch.testing.assert_close(fake_quant_weight(once), once, atol=1e-6, rtol=0)
    np.testing.assert_allclose(weight_scale(once.detach().numpy()), weight_scale(weight.detach().numpy()), rtol=1e-6)
    (once * 3).sum().backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 3))


def test_each_sample_has_its_own_range():
    x = torch.stack([torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(-100, 100, 12).reshape(3, 4)])
    apart = torch.stack([fake_quant_activation(sample) for sample in x])
    torch.testing.assert_close(fake_quant_activation(x, per_sample=True), apart, atol=0, rtol=0)
    assert not torch.allclose(fake_quant_activation(x)[0], apart[0])
