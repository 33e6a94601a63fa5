"""What a graph stores in half the bytes and multiplies as before: float16 weights, made float32 when it is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeclip.export.surgery import load_graph

SMALL = 1024
"""Numbers of a tensor that is not worth a node."""


def write_fp16(source: Path, target: Path) -> None:
    """Write a float graph with its weights in float16; a tensor with numbers beyond its range stays as it is."""
    model = load_graph(source)
    graph, casts = model.graph, list[onnx.NodeProto]()
    for node in graph.node:
        del node.metadata_props[:]
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    onnx.save_model(model, target)
