"""What a graph only stores as integers and computes in float: the pooled projection, and what tokens are made of.

Shape legend: V and D, rows and columns of what is stored.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeclip.export.towers import Tower
from edgeclip.quantize.fake_quant import round_stored
from edgeclip.quantize.scheme import FINE_LIMIT, TABLE_LIMIT, in_steps, stored_step

POSITIONS = ("positions_TD", "tower.position_embedding")
STORED = {f"tower.{name}.weight": FINE_LIMIT for name in ("pooler", "projection", "projection_out")}
STORED |= {"tower.token_embedding.weight": TABLE_LIMIT, **dict.fromkeys(POSITIONS, FINE_LIMIT)}
"""Of an exported tower, with how many steps each has on either side of 0."""


@torch.no_grad()
def round_what_is_stored(tower: Tower) -> None:
    """Give what is stored as integers the values that its storage will hold."""
    for name, table in (*tower.named_parameters(), *tower.named_buffers()):
        if name in STORED:
            table.copy_(round_stored(table, STORED[name]))


def gather_stored(graph: onnx.GraphProto, gather: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Store a table as int8, and return what takes the place of its Gather.

    Rows are taken first and multiplied after, so that the table stays int8 in memory too.
    """
    table, ids, out = gather.input[0], gather.input[1], gather.output[0]
    integers, scales = _add_integers(graph, table, np.int8, axis=0)
    return [
        helper.make_node("Gather", [integers, ids], [f"{out}_integers"]),
        helper.make_node("Gather", [scales, ids], [f"{out}_scale"]),
        helper.make_node("Cast", [f"{out}_integers"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
    ]


def store_product(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Store the weight of a MatMul, Gemm or Conv as int16, and return what takes the node's place.

    It is a hundredth of the weights, and in int8 made up to a half of the error of all layers together.
    """
    return [*_restore(graph, node.input[1], axis=0 if is_transposed(node) or node.op_type == "Conv" else 1), node]


def store_positions(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Store what is added to tokens by their position as int16, and return what restores it."""
    names = [tensor.name for tensor in graph.initializer if tensor.name in POSITIONS]
    return [node for name in names for node in _restore(graph, name, axis=0)]


def _restore(graph: onnx.GraphProto, name: str, axis: int) -> list[onnx.NodeProto]:
    """Store an initializer as int16, and return what makes it of that: the runtime does so as it opens the graph."""
    integers, scales = _add_integers(graph, name, np.int16, axis)
    return [
        helper.make_node("Cast", [integers], [f"{name}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_float", scales], [name]),
    ]


def is_transposed(node: onnx.NodeProto) -> bool:
    """Whether the weight of a MatMul or Gemm is (outputs, inputs)."""
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _take_initializer(graph: onnx.GraphProto, name: str) -> NDArray[np.float32]:
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    graph.initializer.remove(tensor)
    return numpy_helper.to_array(tensor)


def _add_integers(graph: onnx.GraphProto, name: str, dtype: type[np.signedinteger], axis: int) -> tuple[str, str]:
    """Put integers and their scales along an axis, shaped so that their product is the weight, in its place.

    The kernels of a convolution, along their first axis, are rows of more dimensions.

    Returns:
        The names of both.
    """
    weight = _take_initializer(graph, name)
    rows_VD = weight.reshape(len(weight), -1) if axis == 0 else weight.T
    step_V = stored_step(rows_VD, np.iinfo(dtype).max)
    integers_VD = in_steps(rows_VD, step_V).astype(dtype)
    stored = {
        f"{name}_integers": integers_VD.reshape(weight.shape) if axis == 0 else integers_VD.T,
        f"{name}_scale": np.expand_dims(step_V, tuple(d for d in range(weight.ndim) if d != axis)),
    }
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(a), key) for key, a in stored.items())
    integers, scales = stored
    return integers, scales
