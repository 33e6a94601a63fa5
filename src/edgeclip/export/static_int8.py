"""Linear layers in int8 whose activations are rounded by ranges that were measured beforehand.

In ONNX's form for it, QuantizeLinear and DequantizeLinear around a product in float, which runtimes multiply as bytes.
OpenVINO does so with no other form: it computes what `int8` writes in float.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeclip.quantize.scheme import ACTIVATION_LEVELS

Range = tuple[float, float]
"""The smallest and the largest value that an input had."""
SYMMETRIC = 0.5
"""A range is rounded as if both its sides were equal where the shorter is at least so much of the longer.

Without a zero point, which would have to be taken off, that is faster, and at most a quarter of the levels is unused.
"""


def static_nodes(node: onnx.NodeProto, extremes: Range, rounded: set[str]) -> Iterator[onnx.NodeProto]:
    """A Linear's node; adds its input to those that were `rounded` before.

    Args:
        node: a MatMul or Gemm, of whose weight `Int8Tower` has `_quantized` and `_scale`.
        extremes: of its input.
        rounded: inputs that are rounded already.
    """
    x, weight, *bias = node.input
    (out,) = node.output
    if x not in rounded:
        step, zero = _levels(*extremes)
        yield _constant(f"{x}_scale", step)
        yield _constant(f"{x}_zero_point", zero)
        level = [f"{x}_scale", f"{x}_zero_point"]
        yield helper.make_node("QuantizeLinear", [x, *level], [f"{x}_quantized"])
        yield helper.make_node("DequantizeLinear", [f"{x}_quantized", *level], [f"{x}_rounded"])
        rounded.add(x)
    yield from _product(f"{x}_rounded", weight, bias, out)


def static_patch_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A patch embedding's node, given bytes: the same sums as in other int8 graphs."""
    x, weight = node.input
    (out,) = node.output
    level = [f"{weight}_one", f"{weight}_zero_point"]
    yield helper.make_node("DequantizeLinear", [x, *level], [f"{out}_bytes"])
    yield from _product(f"{out}_bytes", weight, [f"{weight}_black"], out)


def _product(x: str, weight: str, bias: list[str], out: str) -> Iterator[onnx.NodeProto]:
    restored, product = f"{out}_weight", f"{out}_product" if bias else out
    yield helper.make_node("DequantizeLinear", [f"{weight}_quantized", f"{weight}_scale"], [restored], axis=1)
    yield helper.make_node("MatMul", [x, restored], [product])
    if bias:
        yield helper.make_node("Add", [product, *bias], [out])


def _levels(low: float, high: float) -> tuple[np.float32, np.int8 | np.uint8]:
    """What a step of a range is worth, and the byte that stands for 0."""
    shorter, longer = sorted((max(-low, 0.0), max(high, 0.0)))
    if longer == 0:
        return np.float32(1), np.int8(0)
    if shorter >= SYMMETRIC * longer:
        return np.float32(2 * longer / (ACTIVATION_LEVELS - 1)), np.int8(0)
    step = np.float32((shorter + longer) / ACTIVATION_LEVELS)
    return step, np.uint8(np.rint(max(-low, 0.0) / step))


def _constant(name: str, value: np.generic) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))
