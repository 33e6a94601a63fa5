"""From a float graph to int8 graphs as `quantize.scheme` describes them, with any layers left in float.

Shape legend: O output channels, I input channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeclip.export.graph import SCOPES
from edgeclip.export.stored_int8 import gather_int8, is_transposed, store_int8
from edgeclip.export.surgery import load_graph
from edgeclip.quantize.scheme import quantize_rows

PROJECTION = "tower.projection"
EMBEDDING = "tower.token_embedding.weight"


class Roles(NamedTuple):
    """What becomes of a graph's nodes, by the first value that each puts out.

    Attributes:
        tables: Gathers whose table is stored as int8 by row.
        stored: products whose weight is only stored as int8.
        layers: the Linear layers, each with its name, that are multiplied as int8.
    """

    tables: set[str]
    stored: set[str]
    layers: dict[str, str]


class Int8Tower:
    """A tower's float graph, read and its weights rounded once, to be written with any of its layers in int8.

    Its projection and its token embedding are only stored as int8, whichever layers are.
    """

    def __init__(self, source: Path, roles_of: Callable[[onnx.GraphProto], Roles] | None = None) -> None:
        """Read a graph.

        Args:
            source: the graph.
            roles_of: finds its layers; by default as `graph.write_image_graph` and `write_text_graph` name them.
        """
        self._rest = load_graph(source)  # at last without nodes, and without the weights of the layers
        self._nodes: list[onnx.NodeProto] = []
        self._layers: dict[str, str] = {}  # the module of each Linear that may be int8, by what its node puts out
        self._float: dict[str, onnx.TensorProto] = {}  # by the weight's name
        self._int8: dict[str, list[onnx.TensorProto]] = {}
        graph = self._rest.graph
        weights = {tensor.name: tensor for tensor in graph.initializer}
        roles = (roles_of or _roles_by_module)(graph)
        for node in graph.node:
            (out, *_) = node.output
            del node.metadata_props[:]
            if out in roles.tables:
                self._nodes += gather_int8(graph, node)
            elif out in roles.stored:
                self._nodes += store_int8(graph, node)
            else:
                self._nodes.append(node)
                if out in roles.layers:
                    self._add_layer(node, roles.layers[out], weights[node.input[1]])
        for tensor in self._float.values():
            graph.initializer.remove(tensor)
        del graph.node[:]

    def _add_layer(self, node: onnx.NodeProto, module: str, weight: onnx.TensorProto) -> None:
        self._layers[node.output[0]] = module
        self._float[weight.name] = weight
        self._int8[weight.name] = _quantized(weight, is_transposed(node))

    def write(self, target: Path, *, float_layers: Collection[str] = ()) -> None:
        """Write the graph with every Linear layer in int8 but the projection and the modules of the tower named."""
        model, weights = onnx.ModelProto(), dict[str, onnx.TensorProto]()
        model.CopyFrom(self._rest)
        rounded: set[str] = set()
        for node in self._nodes:
            layer = self._layers.get(node.output[0])
            if layer is None or layer in float_layers:
                model.graph.node.append(node)
                used = [] if layer is None else [self._float[node.input[1]]]
            else:
                model.graph.node.extend(_int8_nodes(node, rounded))
                used = self._int8[node.input[1]]
            weights |= {tensor.name: tensor for tensor in used}  # which layers may share
        model.graph.initializer.extend(weights.values())
        onnx.save_model(model, target)


def _roles_by_module(graph: onnx.GraphProto) -> Roles:
    """The roles in a graph of our own exporter, by the modules that its nodes were made from."""
    weights, roles = {tensor.name for tensor in graph.initializer}, Roles(set(), set(), {})
    for node in graph.node:
        (out, *_) = node.output
        if node.op_type == "Gather" and node.input[0] == EMBEDDING:
            roles.tables.add(out)
        elif node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
            if (module := _module(node)) == PROJECTION:
                roles.stored.add(out)
            else:
                roles.layers[out] = module
    return roles


def _module(node: onnx.NodeProto) -> str:
    """The module that a node was made from, as the exporter notes it: the last but one of the scopes."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            scopes = [scope.strip(" '\"") for scope in entry.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _quantized(tensor: onnx.TensorProto, transposed: bool) -> list[onnx.TensorProto]:
    """A Linear's weight (I, O), or (O, I) where it is transposed, as (I, O) int8 with scales and zero points (O,)."""
    weight = numpy_helper.to_array(tensor)
    integers_OI, scale_O = quantize_rows(weight if transposed else weight.T)
    integers_IO, zeros_O = np.ascontiguousarray(integers_OI.T), np.zeros(len(scale_O), np.int8)
    return [
        numpy_helper.from_array(integers_IO, f"{tensor.name}_quantized"),
        numpy_helper.from_array(scale_O, f"{tensor.name}_scale"),
        numpy_helper.from_array(zeros_O, f"{tensor.name}_zero_point"),
    ]


def _int8_nodes(node: onnx.NodeProto, rounded: set[str]) -> Iterator[onnx.NodeProto]:
    """A Linear's node in int8, in the form that runtimes fuse; adds its input to those that were `rounded` before."""
    x, weight, *bias = node.input
    (out,) = node.output
    if x not in rounded:
        yield helper.make_node("DynamicQuantizeLinear", [x], [f"{x}_quantized", f"{x}_scale", f"{x}_zero_point"])
        rounded.add(x)
    inputs = [f"{x}_quantized", f"{weight}_quantized", f"{x}_zero_point", f"{weight}_zero_point"]
    product = f"{out}_product" if bias else out
    yield helper.make_node("MatMulInteger", inputs, [f"{out}_integers"])
    yield helper.make_node("Cast", [f"{out}_integers"], [f"{out}_steps"], to=onnx.TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{x}_scale", f"{weight}_scale"], [f"{out}_step"])
    yield helper.make_node("Mul", [f"{out}_steps", f"{out}_step"], [product])
    if bias:
        yield helper.make_node("Add", [product, *bias], [out])
