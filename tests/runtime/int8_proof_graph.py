"""The graph of `runtime.int8_proof`: `python -m tests.runtime.int8_proof_graph` writes it.

Shape legend: K inputs in P pairs, N outputs.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeclip.runtime.int8_proof import GRAPH, INPUTS

LARGE, SMALL = 127, 1
"""What the two weights of a pair are: together 128, and two large ones of different pairs far more."""
NAMES = {"quantized": "x_quantized", "scale": "x_scale", "zero_point": "x_zero_point"}


def proof_weights() -> NDArray[np.int8]:
    """(K, N). Which weight of a pair is large depends on a bit of the pair's number, or not at all.

    Either way round, and with either sign. The numbers of two pairs differ in a bit, so that any two inputs of
    different pairs are both large in some output.
    """
    pairs = (INPUTS + 1) // 2
    number_P = np.arange(pairs)
    bits = [number_P * 0, *((number_P >> bit) & 1 for bit in range(pairs.bit_length()))]
    large_second_PN = np.stack([choice for bit in bits for choice in (bit, 1 - bit)], axis=1)
    first_PN = np.where(large_second_PN, SMALL, LARGE)
    both_KN = np.stack([first_PN, LARGE + SMALL - first_PN], axis=1).reshape(2 * pairs, -1)[:INPUTS]
    return np.concatenate([both_KN, -both_KN], axis=1).astype(np.int8)


def proof_graph() -> onnx.ModelProto:
    """X (rows, K) float32 -> how far the worst sum is from that in float, as both products of a bundle make it."""
    weights_KN = proof_weights()
    K, N = weights_KN.shape
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], [*NAMES.values()]),
        helper.make_node("MatMulInteger", ["x_quantized", "weight", "x_zero_point"], ["integers"]),
        helper.make_node("Cast", ["integers"], ["steps"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_scale", "weight_scale"], ["step"]),
        helper.make_node("Mul", ["steps", "step"], ["layer"]),
        helper.make_node("QuantizeLinear", ["x", "one", "no_byte"], ["bytes"]),
        helper.make_node("MatMulInteger", ["bytes", "patch_weight"], ["byte_integers"]),
        helper.make_node("Cast", ["byte_integers"], ["patches"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "float_weight"], ["right"]),
        *(helper.make_node("Sub", [name, "right"], [f"{name}_off"]) for name in ("layer", "patches")),
        helper.make_node("Concat", ["layer_off", "patches_off"], ["off"], axis=0),
        helper.make_node("Abs", ["off"], ["distance"]),
        helper.make_node("ReduceMax", ["distance"], ["wrong_by"], keepdims=0),
    ]
    constants = {  # a weight of its own for each product: `session.x64quantprecision` refuses one that two share
        "weight": weights_KN,
        "patch_weight": weights_KN,
        "float_weight": weights_KN.astype(np.float32),
        "weight_scale": np.ones(N, np.float32),
        "one": np.float32(1),
        "no_byte": np.uint8(0),
    }
    graph = helper.make_graph(
        nodes,
        "int8_proof",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", K])],
        [helper.make_tensor_value_info("wrong_by", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


if __name__ == "__main__":
    onnx.save_model(proof_graph(), GRAPH)
