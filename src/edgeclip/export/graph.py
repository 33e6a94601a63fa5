"""Towers to ONNX graphs, in float and in int8."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from torch.export import Dim

from edgeclip.export.towers import ImageTower, TextTower
from edgeclip.model import Clip

OPSET = 18
INT8_OPS = ["MatMul", "Gemm", "Gather"]
MAX_BATCH = 4096


def write_image_graph(model: Clip, path: Path) -> None:
    """Write the image tower: pixel_values (B, 3, H, W) float32 -> image_embeds (B, E), dynamic B."""
    size = model.config.vision.image_size
    example = torch.zeros(2, model.config.vision.num_channels, size, size)
    _export(ImageTower(model), example, "pixel_values", "image_embeds", {0: _dim("batch", MAX_BATCH)}, path)


def write_text_graph(model: Clip, path: Path) -> None:
    """Write the text tower: input_ids (N, T) int64 -> text_embeds (N, E), dynamic N and T."""
    context = model.config.text.context_length
    example = torch.ones(2, min(7, context), dtype=torch.int64)
    dims = {0: _dim("batch", MAX_BATCH), 1: _dim("tokens", context)}
    _export(TextTower(model), example, "input_ids", "text_embeds", dims, path)


def _dim(name: str, largest: int) -> Dim:
    return Dim(name, min=1, max=largest)


def _export(
    tower: nn.Module, example: torch.Tensor, input_name: str, output_name: str, dims: dict[int, Dim], path: Path
) -> None:
    with _quiet():
        program = torch.onnx.export(
            tower.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=(dims,),
            verbose=False,
        )
    assert program is not None  # noqa: S101 - None only for the older exporter
    onnx.save_model(program.model_proto, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about torchvision, the quantizer about preparations that the rewrites have made."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def quantize_graph(source: Path, target: Path) -> None:
    """Dynamic int8: weights per output channel, activations per call, the token embedding by row.

    Weights use 7 of their 8 bits: AVX2 without VNNI adds two products in 16 bits, which saturate with 8; so the result
    is the same on every processor. The pooled projection stays float.
    """
    graph = onnx.load_model(source)
    projection = _projection(graph.graph)
    with _quiet():
        quantize_dynamic(
            graph,
            target,
            op_types_to_quantize=INT8_OPS,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[projection, f"{projection}_MatMul"],  # a Gemm is renamed before it is looked for
        )


def _projection(graph: onnx.GraphProto) -> str:
    """The name of the node whose output is normalised at the end."""
    makers = {output: node.name for node in graph.node for output in node.output}
    (norm,) = (node for node in graph.node if node.op_type == "ReduceL2")
    return makers[norm.input[0]]
