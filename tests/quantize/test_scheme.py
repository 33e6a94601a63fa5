"""The int8 arithmetic by hand, and against ONNX Runtime's own operators on this processor."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from edgeclip.quantize.fake_quant import (
    FakeQuantLinear,
    activation_range,
    fake_quant_activation,
    fake_quant_weight,
    round_stored,
    round_weight,
)
from edgeclip.quantize.scheme import PAIR_LIMIT, TABLE_LIMIT, WEIGHT_LIMIT, in_steps, stored_step, weight_step


def run(nodes: list, feed: dict, outputs: list[str]) -> list[np.ndarray]:
    kinds = {np.float32: TensorProto.FLOAT, np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
    inputs = [helper.make_tensor_value_info(k, kinds[v.dtype.type], v.shape) for k, v in feed.items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]  # the runtime infers their types
    graph = helper.make_graph(nodes, "g", inputs, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def test_rows_by_hand():
    """By its largest weight; by its largest pair, as if both had its size; zeros; signs that take from each other."""
    weight = np.array([[1, -2, 0.5, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1.27, -1.27, 0.01, 0]], np.float32)
    step = weight_step(weight)
    np.testing.assert_allclose(step, [2 / 127, 2 / 128, 1, 0.01], rtol=2e-6)
    np.testing.assert_array_equal(
        in_steps(weight, step), [[63, -127, 32, 0], [64, 64, 0, 0], [0, 0, 0, 0], [127, -127, 1, 0]]
    )


def test_an_odd_last_input_is_in_no_pair():
    np.testing.assert_allclose(weight_step(np.array([[1, 0, 2]], np.float32)), [2 / 127], rtol=2e-6)
    np.testing.assert_allclose(weight_step(np.array([[3]], np.float32)), [3 / 127], rtol=2e-6)


def test_stored_rows_by_hand():
    table = np.array([[1.0, 1.0], [-4, 2], [0, 0]], np.float32)
    np.testing.assert_allclose(stored_step(table, TABLE_LIMIT), [1 / 127, 4 / 127, 1])
    np.testing.assert_array_equal(in_steps(table, stored_step(table, 32767)), [[32767, 32767], [-32767, 16384], [0, 0]])


WEIGHTS = {
    "normal": lambda rng: rng.normal(size=(200, 64)),
    "heavy-tailed": lambda rng: rng.standard_t(1.5, size=(200, 63)),
    "one outlier": lambda rng: np.where(rng.random((200, 64)) < 1 / 64, 40, 1) * rng.normal(size=(200, 64)),
    "one sign": lambda rng: rng.random((200, 64)),
    "all alike": lambda rng: np.repeat(rng.normal(size=(200, 1)), 63, axis=1),
    "half levels": lambda rng: rng.integers(-255, 256, (200, 64)) / 2,
    "tiny": lambda rng: rng.normal(size=(200, 64)) * 1e-30,
    "of one input": lambda rng: rng.normal(size=(200, 1)),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_no_pair_of_weights_can_saturate_and_none_is_far_from_its_limit(kind: str):
    weight = WEIGHTS[kind](np.random.default_rng(0)).astype(np.float32)
    step = weight_step(weight)
    steps = np.pad(in_steps(weight, step), ((0, 0), (0, weight.shape[1] % 2))).astype(int)
    pairs = steps.reshape(len(steps), -1, 2)
    assert (255 * np.maximum(pairs, 0).sum(axis=2)).max() <= 2**15 - 1
    assert (255 * np.minimum(pairs, 0).sum(axis=2)).min() >= -(2**15)
    assert np.abs(steps).max() <= WEIGHT_LIMIT
    used = np.maximum(np.abs(steps).max(axis=1) / WEIGHT_LIMIT, np.abs(pairs.sum(axis=2)).max(axis=1) / PAIR_LIMIT)
    assert used.min() > 0.99
    assert (np.abs(steps[:, : weight.shape[1]] * step[:, None] - weight) <= step[:, None] * 0.5001).all()


@pytest.mark.parametrize("kind", WEIGHTS)
def test_towers_and_graphs_round_alike(kind: str):
    weight = WEIGHTS[kind](np.random.default_rng(1)).astype(np.float32)
    for rounded, step in (
        (round_weight(torch.from_numpy(weight)), weight_step(weight)),
        (round_stored(torch.from_numpy(weight), TABLE_LIMIT), stored_step(weight, TABLE_LIMIT)),
    ):
        np.testing.assert_array_equal(rounded.numpy(), in_steps(weight, step) * step[:, None])


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


def test_a_fake_quantized_layer_equals_the_integer_one():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(32, 10), torch.randn(6, 32)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    q, scale, zero = run([node], {"x": x.numpy()}, ["q", "scale", "zero"])
    weight = linear.weight.detach().numpy()
    steps = weight_step(weight)
    rows = in_steps(weight, steps)
    sums = (q.astype(np.int32) - int(zero)) @ rows.astype(np.int32).T
    expected = sums * (scale * steps) + linear.bias.detach().numpy()
    np.testing.assert_allclose(FakeQuantLinear(linear)(x[None])[0].detach().numpy(), expected, atol=2e-5)


def test_rounding_twice_changes_nothing_and_gradients_pass():
    weight = torch.randn(8, 16, requires_grad=True)
    once = fake_quant_weight(weight)
    torch.testing.assert_close(fake_quant_weight(once), once, atol=1e-5, rtol=0)
    np.testing.assert_allclose(weight_step(once.detach().numpy()), weight_step(weight.detach().numpy()), rtol=2e-6)
    (once * 3).sum().backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 3))


def test_each_sample_has_its_own_range():
    x = torch.stack([torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(-100, 100, 12).reshape(3, 4)])
    apart = torch.stack([fake_quant_activation(sample) for sample in x])
    torch.testing.assert_close(fake_quant_activation(x, per_sample=True), apart, atol=0, rtol=0)
    assert not torch.allclose(fake_quant_activation(x)[0], apart[0])
