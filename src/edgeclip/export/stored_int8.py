"""What a graph only stores as int8 and multiplies in float: the pooled projection and the token embedding.

Shape legend: V and D, rows and columns of what is stored.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.quantize.fake_quant import round_weight
from edgeclip.quantize.scheme import ROW_LIMIT, quantize_rows


@torch.no_grad()
def round_what_is_stored(tower: ExportedImageTower | ExportedTextTower) -> None:
    """Give the projection and the token embedding the values that their int8 storage will hold."""
    tables: list[nn.Linear | nn.Embedding] = [tower.tower.projection]
    if isinstance(tower, ExportedTextTower):
        tables.append(tower.tower.token_embedding)
    for table in tables:
        table.weight.copy_(round_weight(table.weight, ROW_LIMIT))


def gather_int8(graph: onnx.GraphProto, gather: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Store a table as int8, and return what takes the place of its Gather.

    Rows are taken first and multiplied after, so that the table stays int8 in memory too.
    """
    table, ids, out = gather.input[0], gather.input[1], gather.output[0]
    integers, scales = _add_int8(graph, table, _take_initializer(graph, table), axis=0)
    return [
        helper.make_node("Gather", [integers, ids], [f"{out}_int8"]),
        helper.make_node("Gather", [scales, ids], [f"{out}_scale"]),
        helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
    ]


def store_int8(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Store the weight of a MatMul, Gemm or Conv as int8, and return what takes the node's place.

    The runtime folds the product when it opens the graph: stored as int8, multiplied as float.
    """
    weight = node.input[1]
    axis = 0 if is_transposed(node) or node.op_type == "Conv" else 1
    integers, scales = _add_int8(graph, weight, _take_initializer(graph, weight), axis=axis)
    return [
        helper.make_node("Cast", [integers], [f"{weight}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{weight}_float", scales], [weight]),
        node,
    ]


def is_transposed(node: onnx.NodeProto) -> bool:
    """Whether the weight of a MatMul or Gemm is (outputs, inputs)."""
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _take_initializer(graph: onnx.GraphProto, name: str) -> NDArray[np.float32]:
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    graph.initializer.remove(tensor)
    return numpy_helper.to_array(tensor)


def _add_int8(graph: onnx.GraphProto, name: str, weight_VD: NDArray[np.float32], axis: int) -> tuple[str, str]:
    """Add an int8 weight and its scales along an axis, shaped so that their product is the weight; their names.

    The kernels of a convolution, along their first axis, are rows of more dimensions.
    """
    rows, scale = quantize_rows(weight_VD.reshape(len(weight_VD), -1) if axis == 0 else weight_VD.T, ROW_LIMIT)
    whole = rows.reshape(weight_VD.shape) if axis == 0 else rows.T
    shape = (-1, *[1] * (weight_VD.ndim - 1)) if axis == 0 else (1, -1)
    stored = {f"{name}_int8": whole, f"{name}_scale": scale.reshape(shape)}
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(a), key) for key, a in stored.items())
    integers, scales = stored
    return integers, scales
