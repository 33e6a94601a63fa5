"""From a float graph to one with 4-bit weights, in blocks of 32 inputs with a scale each: half the bytes of int8.

A block's activations are rounded to 8 bits by the block's own range (`accuracy_level` 4; without it the weights would
be made float again for every call), so that an outlier channel costs its own block alone.

Source: com.microsoft.MatMulNBits of ONNX Runtime's contributed operators.

Shape legend: O output channels, I input channels, N blocks of a row, K = 32 inputs of a block.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeclip.export.int8 import EMBEDDING, HEAD, module_of
from edgeclip.export.stored import gather_stored, is_transposed, store_product
from edgeclip.export.surgery import load_graph

BLOCK = 32
ZERO = 8
"""What stands for 0 among the 16 numbers of 4 bits."""
INT8_ACTIVATIONS = 4
DOMAIN = "com.microsoft"


def write_int4(source: Path, target: Path) -> None:
    """Write every Linear layer in 4 bits but the projection and the token embedding, see `stored`.

    Args:
        source: a graph that was written by `graph.write_image_graph` or `write_text_graph`.
        target: where to write.
    """
    model = load_graph(source)
    graph, nodes, rounded = model.graph, list(model.graph.node), set[str]()
    weights = {tensor.name: tensor for tensor in graph.initializer}
    del graph.node[:]
    for node in nodes:
        module = module_of(node)
        is_linear = node.op_type in ("MatMul", "Gemm") and node.input[1] in weights
        del node.metadata_props[:]
        if node.op_type == "Gather" and node.input[0] == EMBEDDING:
            graph.node.extend(gather_stored(graph, node))
        elif is_linear and module in HEAD:
            graph.node.extend(store_product(graph, node))
        elif is_linear:
            graph.node.extend(_int4_nodes(graph, node, weights[node.input[1]], rounded))
        else:
            graph.node.append(node)
    for name in rounded:
        graph.initializer.remove(weights[name])
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save_model(model, target)


def _int4_nodes(
    graph: onnx.GraphProto, node: onnx.NodeProto, weight: onnx.TensorProto, rounded: set[str]
) -> list[onnx.NodeProto]:
    """What takes the place of a Linear's node; adds its weight to those that were `rounded` before."""
    x, name, *bias = node.input
    (out,) = node.output
    array = numpy_helper.to_array(weight)
    weight_OI = array if is_transposed(node) else array.T
    packed, scales = f"{name}_int4", f"{name}_scale"
    if name not in rounded:
        packed_ONH, scale_ON = quantize_blocks(weight_OI)
        graph.initializer.append(numpy_helper.from_array(packed_ONH, packed))
        graph.initializer.append(numpy_helper.from_array(scale_ON.reshape(-1), scales))
        rounded.add(name)
    product = f"{out}_product" if bias else out
    sizes = {"K": weight_OI.shape[1], "N": weight_OI.shape[0], "bits": 4, "block_size": BLOCK}
    multiply = helper.make_node(
        "MatMulNBits", [x, packed, scales], [product], domain=DOMAIN, accuracy_level=INT8_ACTIVATIONS, **sizes
    )
    return [multiply, helper.make_node("Add", [product, *bias], [out])] if bias else [multiply]


def quantize_blocks(weight_OI: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """4 bits by block: the value of largest magnitude becomes -8, which alone of both ends has so many steps.

    Args:
        weight_OI: (O, I) float32; the last block is filled up with zeros.

    Returns:
        (O, N, 16) uint8, two numbers a byte, the first in the lower half; and (O, N) float32, what a step is worth.
    """
    O, I = weight_OI.shape
    N = -(-I // BLOCK)
    padded_ONK = np.zeros((O, N * BLOCK), np.float32)
    padded_ONK[:, :I] = weight_OI
    padded_ONK = padded_ONK.reshape(O, N, BLOCK)
    largest_ON = np.take_along_axis(padded_ONK, np.abs(padded_ONK).argmax(axis=2)[..., None], axis=2)[..., 0]
    scale_ON = np.where(largest_ON != 0, largest_ON / -ZERO, 1).astype(np.float32)
    steps_ONK = np.clip(np.rint(padded_ONK / scale_ON[..., None]) + ZERO, 0, 15).astype(np.uint8)
    return steps_ONK[..., 0::2] | steps_ONK[..., 1::2] << 4, scale_ON
