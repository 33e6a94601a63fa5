"""The logit scale of a CLIP, and the bias of a SigLIP, read from a graph that has both towers and the logits."""

from __future__ import annotations

import math
from pathlib import Path

from edgeclip.runtime.onnx_file import Node, OnnxFile, read_onnx

LOGITS = ("logits_per_image", "logits_per_text")
MOST_STEPS = 8
SAME = ("Transpose", "Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze")


def logits_of(path: Path) -> tuple[float | None, float | None]:
    """The factor on cosines that makes the logits of a graph, and what is added; None where it can't be told from it.

    Raises:
        BundleError: it is no ONNX graph.
    """
    graph = read_onnx(path)
    made_by = {name: node for node in graph.nodes for name in node.outputs}
    for name in LOGITS:
        node, bias = _before(made_by, name), None
        if node is not None and node.op == "Add":
            numbers = {operand: _scalar(graph, made_by, operand) for operand in node.inputs}
            bias = next((number for number in numbers.values() if number is not None and math.isfinite(number)), None)
            node = next((_before(made_by, operand) for operand, number in numbers.items() if number is None), None)
        if node is not None and node.op == "Mul":
            for factor in node.inputs:
                if (scale := _scalar(graph, made_by, factor)) is not None and math.isfinite(scale) and scale > 0:
                    return scale, bias
    return None, None


def _before(made_by: dict[str, Node], name: str) -> Node | None:
    """The node that makes a value, or the one from which it is only handed on."""
    node = made_by.get(name)
    for _ in range(MOST_STEPS):
        if node is None or node.op not in SAME or not node.inputs:
            break
        node = made_by.get(node.inputs[0])
    return node


def _scalar(graph: OnnxFile, made_by: dict[str, Node], name: str) -> float | None:
    """A constant number, or the exponential of one."""
    is_exponential = False
    for _ in range(MOST_STEPS):
        if name in graph.tensors:
            values = graph.tensors[name].array()
            if values is None or values.size != 1 or values.dtype.kind != "f":
                return None
            value = float(values.reshape(()))
            return math.exp(min(value, 100.0)) if is_exponential else value
        step = made_by.get(name)
        if step is None or step.op not in (*SAME, "Exp") or not step.inputs:
            return None
        is_exponential |= step.op == "Exp"
        name = step.inputs[0]
    return None
