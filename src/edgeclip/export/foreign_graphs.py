"""Another program's float graphs as a bundle's: its names, one input, one output of length 1, constants folded.

Sizes that are fixed stay so: the runtime feeds such a graph in parts, and fills texts up.

Shape legend: N items, T tokens, S image size, E embedding size.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgeclip.errors import BundleError, ConfigError
from edgeclip.export.graph import MAX_BYTES
from edgeclip.export.int8 import Roles
from edgeclip.export.surgery import load_graph, prefixed, rename
from edgeclip.graph_model import Kind
from edgeclip.runtime.foreign import Tower
from edgeclip.runtime.ports import HANDED_ON, MASK, POOLED
from edgeclip.runtime.session import RUNTIME_ERRORS

OWN: dict[Kind, tuple[str, str]] = {"image": ("pixel_values", "image_embeds"), "text": ("input_ids", "text_embeds")}
GIVEN = {"image": TensorProto.FLOAT, "text": TensorProto.INT64}
SCALING = ("LpNormalization", "Cast", "Div", "Identity", "Flatten", "Squeeze", "Reshape")
MOST_SCALING = 8
MIN_WEIGHTS = 1024
"""A product or table of fewer is left in float: it takes no room."""


def write_own_form(tower: Tower, kind: Kind, target: Path) -> None:
    """Write a tower's graph in a bundle's form.

    Args:
        tower: of float32 products.
        kind: which.
        target: the file.

    Raises:
        ConfigError: it is too large for one ONNX file.
        BundleError: ONNX Runtime can't open it, or its weights are not finite.
    """
    size = sum(path.stat().st_size for path in (tower.graph, *tower.weights))
    if size >= MAX_BYTES:
        raise ConfigError(
            f"{tower.graph}, of {size / 1e9:.1f} GB with its weights", expected="at most 2 GB", fix="load it as it is"
        )
    model = load_graph(tower.graph)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise BundleError(
                f"{tower.graph}, whose {tensor.name} is not finite", expected="finite weights", fix="download it again"
            )
    model = prefixed(model, "foreign/")
    _rewire(model, tower, kind)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        renamed = Path(scratch) / "graph.onnx"
        onnx.save_model(model, renamed)
        _fold(renamed, target, tower.graph)


def _rewire(model: onnx.ModelProto, tower: Tower, kind: Kind) -> None:
    """Put a bundle's input before the graph's, and its unit vectors after the graph's output."""
    graph, ports, (given, given_back) = model.graph, tower.ports, OWN[kind]
    given_back = POOLED if ports.sees_padding else given_back
    rename(model, {ports.input: "theirs", ports.output: "their_embeds"})
    sizes = {value.name: [_size(dim) for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    front = [helper.make_node("Cast", [given], ["theirs"], to=types["theirs"])]
    if ports.mask is not None:  # what is masked stands behind the end of a text, which nothing before it sees
        ones = numpy_helper.from_array(np.ones(1, ports.mask), "value")
        front += [
            helper.make_node("Shape", [given], ["their_sizes"]),
            helper.make_node("ConstantOfShape", ["their_sizes"], [MASK], value=ones),
        ]
    back = [
        helper.make_node("Cast", ["their_embeds"], ["float_embeds"], to=TensorProto.FLOAT),
        helper.make_node("LpNormalization", ["float_embeds"], [given_back], axis=-1, p=2),
    ]
    nodes = [*front, *graph.node, *back]
    names = ["batch", "tokens"] if kind == "text" else ["batch", 3, *sizes["theirs"][2:]]
    fixed = [size or name for size, name in zip(sizes["theirs"], names, strict=True)]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(given, GIVEN[kind], fixed))
    graph.output.append(helper.make_tensor_value_info(given_back, TensorProto.FLOAT, [fixed[0], ports.width]))


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return dim.dim_value or None


def _fold(source: Path, target: Path, given: Path) -> None:
    """Have ONNX Runtime fold constants, and drop what no output needs; products keep their form."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4  # errors are raised
    try:
        onnxruntime.InferenceSession(
            str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=["MatMulAddFusion"]
        )
    except RUNTIME_ERRORS as error:
        raise BundleError(
            f"{given} ({str(error).splitlines()[0]})", expected="an ONNX graph", fix="copy it again"
        ) from error
    model = load_graph(target)
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save_model(model, target)


def roles_by_structure(graph: onnx.GraphProto) -> Roles:
    """The layers of a graph in a bundle's form, by how its nodes hang together.

    The last product before the output is the projection, and the convolution the patch embedding: both are only stored
    as int16, and the table that token ids are looked up in as int8. Other products with a constant are Linear layers.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    large = {name: tensor for name, tensor in weights.items() if _count(tensor) >= MIN_WEIGHTS}
    uses = Counter(name for node in graph.node for name in node.input if name in large)
    roles = Roles(set(), set(), {})
    ids = {OWN["text"][0]}
    for node in graph.node:
        out, index = node.output[0], 0 if node.op_type == "Gather" else 1
        constant = large.get(node.input[index]) if len(node.input) > index else None
        if node.op_type in HANDED_ON and ids.intersection(node.input):
            ids.update(node.output)
        if constant is None:
            continue
        alone = uses[constant.name] == 1
        if node.op_type == "Gather" and node.input[1] in ids and len(constant.dims) == 2 and alone:
            roles.tables.add(out)
        elif node.op_type == "Conv" and alone:
            roles.stored.add(out)
        elif len(constant.dims) == 2 and (node.op_type == "MatMul" or is_plain_gemm(node)):
            roles.layers[out] = f"{node.op_type} {len(roles.layers)}"
    last = _last_product(graph, set(roles.layers))
    if last is not None and uses[last.input[1]] == 1:
        del roles.layers[last.output[0]]
        roles.stored.add(last.output[0])
    return roles


def is_plain_gemm(node: onnx.NodeProto) -> bool:
    """Whether a node is x W or x W^T, plus a bias."""
    numbers = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = all(numbers.get(name, 1.0) == 1.0 for name in ("alpha", "beta")) and not numbers.get("transA")
    return node.op_type == "Gemm" and plain


def _last_product(graph: onnx.GraphProto, products: set[str]) -> onnx.NodeProto | None:
    """The product from which the output comes by way of nodes that only scale it."""
    made_by = {name: node for node in graph.node for name in node.output}
    node = made_by.get(graph.output[0].name)
    for _ in range(MOST_SCALING):
        if node is None or node.output[0] in products:
            return node
        node = made_by.get(node.input[0]) if node.op_type in SCALING else None
    return None


def _count(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)
