"""From a float graph to int8 graphs as `quantize.scheme` describes them, with any layers left in float.

Shape legend: O output channels, I input channels; "..." the rows of one call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeclip.errors import ConfigError
from edgeclip.export.graph import MAX_BYTES, SCOPES
from edgeclip.export.static_int8 import Range, static_nodes, static_patch_nodes
from edgeclip.export.stored import gather_stored, is_transposed, store_positions, store_product
from edgeclip.export.surgery import load_graph
from edgeclip.quantize.pixels import PATCH_EMBEDDING, PixelBytes
from edgeclip.quantize.scheme import in_steps, weight_step

PROJECTION = "tower.projection"
HEAD = frozenset({PROJECTION, "tower.pooler", "tower.projection_out"})
"""What makes an embedding of the pooled token: only stored as integers."""
EMBEDDING = "tower.token_embedding.weight"


class Roles(NamedTuple):
    """What becomes of a graph's nodes, by the first value that each puts out.

    Attributes:
        tables: Gathers whose table is stored as int8 by row.
        stored: products and convolutions whose weight is only stored, as int16.
        layers: the Linear layers, each with its name, that are multiplied as int8.
    """

    tables: set[str]
    stored: set[str]
    layers: dict[str, str]


class Int8Tower:
    """A tower's float graph, read and its weights rounded once, to be written with any of its layers in int8.

    Its projection, positions and token embedding are only stored as integers, whichever layers are int8.
    """

    def __init__(
        self,
        source: Path,
        pixels: PixelBytes | None = None,
        roles_of: Callable[[onnx.GraphProto], Roles] | None = None,
    ) -> None:
        """Read a graph.

        Args:
            source: the graph.
            pixels: of an image tower whose patch embedding is a Linear, what its patches were made of.
            roles_of: finds its layers; by default as `graph.write_image_graph` and `write_text_graph` name them.
        """
        self._pixels = pixels
        self._rest = load_graph(source)  # at last without nodes, and without the weights of the layers
        self._nodes: list[onnx.NodeProto] = []
        self._layers: dict[str, str] = {}  # the module of each Linear that may be int8, by what its node puts out
        self._float: dict[str, onnx.TensorProto] = {}  # by the weight's name
        self._int8: dict[str, list[onnx.TensorProto]] = {}
        graph = self._rest.graph
        weights = {tensor.name: tensor for tensor in graph.initializer}
        roles = (roles_of or _roles_by_module)(graph)
        self._nodes += store_positions(graph)
        for node in graph.node:
            (out, *_) = node.output
            del node.metadata_props[:]
            if out in roles.tables:
                self._nodes += gather_stored(graph, node)
            elif out in roles.stored:
                self._nodes += store_product(graph, node)
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
        array = numpy_helper.to_array(weight)
        weight_OI = array if is_transposed(node) else array.T
        if (pixels := self._pixels_of(module)) is not None:
            self._int8[weight.name] = _quantized_patches(weight.name, weight_OI, pixels)
        else:
            self._int8[weight.name] = _quantized(weight.name, weight_OI)

    def _pixels_of(self, module: str) -> PixelBytes | None:
        return self._pixels if module.endswith(PATCH_EMBEDDING) else None

    def write(
        self, target: Path, *, float_layers: Collection[str] = (), ranges: Mapping[str, Range] | None = None
    ) -> None:
        """Write the graph with every Linear layer in int8 but the projection and the modules of the tower named.

        Args:
            target: where to.
            float_layers: those modules.
            ranges: of each layer's input, for activations that are rounded by them, see `static_int8`; None for those
                that are rounded by each call's own.

        Raises:
            ConfigError: it is too large for one ONNX file.
        """
        model, weights = onnx.ModelProto(), dict[str, onnx.TensorProto]()
        model.CopyFrom(self._rest)
        rounded: set[str] = set()
        for node in self._nodes:
            layer = self._layers.get(node.output[0])
            if layer is None or layer in float_layers:
                model.graph.node.append(node)
                used = [] if layer is None else [self._float[node.input[1]]]
            else:
                if self._pixels_of(layer) is None:
                    extremes = ranges and ranges[layer]
                    nodes = static_nodes(node, extremes, rounded) if extremes else _int8_nodes(node, rounded)
                else:
                    _make_bytes(model.graph, node)
                    nodes = static_patch_nodes(node) if ranges else _patch_nodes(node)
                model.graph.node.extend(nodes)
                used = self._int8[node.input[1]]
            weights |= {tensor.name: tensor for tensor in used}  # which layers may share
        model.graph.initializer.extend(weights.values())
        if (size := sum(len(tensor.raw_data) for tensor in model.graph.initializer)) >= MAX_BYTES:
            raise ConfigError(
                f"a tower of {size / 1e9:.1f} GB in int8",
                expected="at most 2 GB, as ONNX files have",
                fix="export it with fewer words (`keep_words`), or a smaller model",
            )
        onnx.save_model(model, target)


def _roles_by_module(graph: onnx.GraphProto) -> Roles:
    """The roles in a graph of our own exporter, by the modules that its nodes were made from."""
    weights, roles = {tensor.name for tensor in graph.initializer}, Roles(set(), set(), {})
    for node in graph.node:
        (out, *_) = node.output
        if node.op_type == "Gather" and node.input[0] == EMBEDDING:
            roles.tables.add(out)
        elif node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
            if (module := module_of(node)) in HEAD:
                roles.stored.add(out)
            else:
                roles.layers[out] = module
        elif node.op_type == "Conv":
            roles.stored.add(out)
    return roles


def module_of(node: onnx.NodeProto) -> str:
    """The module that a node was made from, as the exporter notes it: the last but one of the scopes."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            scopes = [scope.strip(" '\"") for scope in entry.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _quantized(name: str, weight_OI: NDArray[np.float32]) -> list[onnx.TensorProto]:
    """A Linear's weight as (I, O) int8, with scales (O,)."""
    step_O = weight_step(weight_OI)
    integers_IO = np.ascontiguousarray(in_steps(weight_OI, step_O).T, np.int8)
    return _named(name, quantized=integers_IO, scale=step_O)


def _quantized_patches(name: str, weight_OI: NDArray[np.float32], pixels: PixelBytes) -> list[onnx.TensorProto]:
    """A patch embedding's weight as one of bytes, and what makes bytes of its input: see `PixelBytes`."""
    step_I, zero_I = pixels.step.numpy(), pixels.zero.numpy()
    bytes_a_unit, byte_of_zero = pixels.of_bytes()
    step_O = weight_step(weight_OI * step_I)
    integers_OI = in_steps(weight_OI * step_I, step_O)
    return _named(
        name,
        quantized=np.ascontiguousarray(integers_OI.T, np.int8),
        scale=step_O,
        black=(integers_OI * step_O[:, None]) @ (zero_I / step_I),
        bytes_a_unit=bytes_a_unit.numpy(),
        byte_of_zero=byte_of_zero.numpy(),
        one=np.float32(1),
        zero_point=np.uint8(0),
    )


def _named(name: str, **arrays: NDArray[np.generic] | np.generic) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(array), f"{name}_{part}") for part, array in arrays.items()]


def _int8_nodes(node: onnx.NodeProto, rounded: set[str]) -> Iterator[onnx.NodeProto]:
    """A Linear's node in int8, in the form that runtimes fuse; adds its input to those that were `rounded` before."""
    x, weight, *bias = node.input
    (out,) = node.output
    if x not in rounded:
        yield helper.make_node("DynamicQuantizeLinear", [x], [f"{x}_quantized", f"{x}_scale", f"{x}_zero_point"])
        rounded.add(x)
    inputs = [f"{x}_quantized", f"{weight}_quantized", f"{x}_zero_point"]
    product = f"{out}_product" if bias else out
    yield helper.make_node("MatMulInteger", inputs, [f"{out}_integers"])
    yield helper.make_node("Cast", [f"{out}_integers"], [f"{out}_steps"], to=onnx.TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{x}_scale", f"{weight}_scale"], [f"{out}_step"])
    yield helper.make_node("Mul", [f"{out}_steps", f"{out}_step"], [product])
    if bias:
        yield helper.make_node("Add", [product, *bias], [out])


def _make_bytes(graph: onnx.GraphProto, patch_embedding: onnx.NodeProto) -> None:
    """Turn `pixel_values` back to the bytes that they were, before they are cut into patches: that moves fewer."""
    weight = patch_embedding.input[1]
    maker, moved = {out: node for node in graph.node for out in node.output}, patch_embedding
    while moved.input[0] in maker:
        moved = maker[moved.input[0]]
    pixel_values, moved.input[0] = moved.input[0], "pixel_bytes"
    quantize = ["pixel_levels", f"{weight}_one", f"{weight}_zero_point"]
    graph.node.insert(0, helper.make_node("QuantizeLinear", quantize, ["pixel_bytes"]))
    graph.node.insert(0, helper.make_node("Add", ["pixel_steps", f"{weight}_byte_of_zero"], ["pixel_levels"]))
    graph.node.insert(0, helper.make_node("Mul", [pixel_values, f"{weight}_bytes_a_unit"], ["pixel_steps"]))


def _patch_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A patch embedding's node in int8, given bytes."""
    x, weight = node.input
    (out,) = node.output
    yield helper.make_node("MatMulInteger", [x, f"{weight}_quantized"], [f"{out}_integers"])
    yield helper.make_node("Cast", [f"{out}_integers"], [f"{out}_steps"], to=onnx.TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{out}_steps", f"{weight}_scale"], [f"{out}_product"])
    yield helper.make_node("Add", [f"{out}_product", f"{weight}_black"], [out])
