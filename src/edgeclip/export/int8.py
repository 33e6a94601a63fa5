"""From a float graph to the int8 graph that `quantize.scheme` describes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from edgeclip.export.graph import SCOPES, quiet
from edgeclip.export.surgery import load_graph
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.quantize.fake_quant import fake_quant_weight
from edgeclip.quantize.scheme import ROW_LIMIT, quantize_rows

PROJECTION = "tower.projection"


def quantize_graph(source: Path, target: Path, *, float_layers: Collection[str] = ()) -> None:
    """Quantize every Linear layer but the projection and `float_layers`; store the projection and embedding as int8.

    Args:
        source: written by `graph.write_image_graph` or `write_text_graph`.
        target: the int8 graph.
        float_layers: names of the tower's modules to leave in float.
    """
    model = onnx.load_model(source)
    left_out = [node.name for node in model.graph.node if _module(node) in {PROJECTION, *float_layers}]
    for node in list(model.graph.node):
        if node.op_type == "Gather" and node.input[0] == "tower.token_embedding.weight":
            _gather_int8(model.graph, node)
        elif _module(node) == PROJECTION and node.op_type in ("MatMul", "Gemm"):
            _store_int8(model.graph, node)
    for node in model.graph.node:
        del node.metadata_props[:]
    with quiet():
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,  # to WEIGHT_LIMIT
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*left_out, *(f"{name}_MatMul" for name in left_out)],  # as it renames a Gemm
        )
    onnx.save_model(load_graph(target), target)


@torch.no_grad()
def round_what_is_stored(tower: ExportedImageTower | ExportedTextTower) -> None:
    """Give the projection and the token embedding the values that their int8 storage will hold."""
    tables: list[nn.Linear | nn.Embedding] = [tower.tower.projection]
    if isinstance(tower, ExportedTextTower):
        tables.append(tower.tower.token_embedding)
    for table in tables:
        table.weight.copy_(fake_quant_weight(table.weight, ROW_LIMIT))


def _module(node: onnx.NodeProto) -> str:
    """The module that a node was made from, as the exporter notes it: the last but one of the scopes."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            scopes = [scope.strip(" '\"") for scope in entry.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _take_initializer(graph: onnx.GraphProto, name: str) -> NDArray[np.float32]:
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    graph.initializer.remove(tensor)
    return numpy_helper.to_array(tensor)


def _add_int8(graph: onnx.GraphProto, name: str, weight_VD: NDArray[np.float32], axis: int) -> tuple[str, str]:
    """Add an int8 weight and its scales along an axis, shaped so that their product is the weight; their names."""
    rows, scale = quantize_rows(weight_VD if axis == 0 else weight_VD.T, ROW_LIMIT)
    stored = {f"{name}_int8": rows if axis == 0 else rows.T, f"{name}_scale": np.expand_dims(scale, 1 - axis)}
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(a), key) for key, a in stored.items())
    integers, scales = stored
    return integers, scales


def _insert(graph: onnx.GraphProto, before: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
    index = list(graph.node).index(before)
    following = list(graph.node)[index:]
    del graph.node[index:]
    graph.node.extend([*nodes, *following])


def _gather_int8(graph: onnx.GraphProto, gather: onnx.NodeProto) -> None:
    """Rows are taken first and multiplied after, so that the table stays int8 in memory too."""
    table, ids, out = gather.input[0], gather.input[1], gather.output[0]
    integers, scales = _add_int8(graph, table, _take_initializer(graph, table), axis=0)
    _insert(
        graph,
        gather,
        [
            helper.make_node("Gather", [integers, ids], [f"{out}_int8"]),
            helper.make_node("Gather", [scales, ids], [f"{out}_scale"]),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ],
    )
    graph.node.remove(gather)


def _store_int8(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """The runtime folds the product when it opens the graph: stored as int8, multiplied as float."""
    weight = node.input[1]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    integers, scales = _add_int8(graph, weight, _take_initializer(graph, weight), axis=0 if transposed else 1)
    _insert(
        graph,
        node,
        [
            helper.make_node("Cast", [integers], [f"{weight}_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{weight}_float", scales], [weight]),
        ],
    )
