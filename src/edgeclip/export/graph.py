"""Towers to ONNX graphs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.export import Dim

from edgeclip.errors import ConfigError
from edgeclip.export.convolutional import ExportedFastViT
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.hf_config import IMAGE_OUTPUTS, TEXT_OUTPUTS

OPSET = 18
MAX_BATCH = 4096
MAX_BYTES = 2**31 - 2**24
"""What one ONNX file can hold, the graph itself left aside."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes the module that a node was made from."""


def write_image_graph(tower: ExportedImageTower | ExportedFastViT, path: Path, *, to_be_rounded: bool = False) -> None:
    """Write the image tower: pixel_values (B, 3, H, W) float32 -> embeddings (B, E), dynamic B.

    One that is only written to be rounded may have its weights in a file beside it, where they don't fit into its own.
    """
    config = tower.tower.config
    example = torch.zeros(2, config.num_channels, config.image_size, config.image_size)
    _export(
        tower,
        example,
        "pixel_values",
        IMAGE_OUTPUTS[config.pooling],
        {0: _dim("batch", MAX_BATCH)},
        path,
        to_be_rounded,
    )


def write_text_graph(tower: ExportedTextTower, path: Path, *, to_be_rounded: bool = False) -> None:
    """Write the text tower: input_ids (N, T) int64 -> embeddings (N, E), dynamic N, and T unless texts are padded.

    See `write_image_graph`.
    """
    config, dims = tower.tower.config, {0: _dim("batch", MAX_BATCH)}
    if not config.sees_padding:
        dims[1] = _dim("tokens", config.context_length)
    length = config.context_length if config.sees_padding else min(7, config.context_length)
    example = torch.ones(2, length, dtype=torch.int64)
    _export(tower, example, "input_ids", TEXT_OUTPUTS[config.pooling], dims, path, to_be_rounded)


def _dim(name: str, largest: int) -> Dim:
    return Dim(name, min=1, max=largest)


def _export(
    tower: nn.Module,
    example: torch.Tensor,
    input_name: str,
    output_name: str,
    dims: dict[int, Dim],
    path: Path,
    to_be_rounded: bool,
) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in tower.state_dict().values())
    if size >= MAX_BYTES and not to_be_rounded:
        raise ConfigError(
            f"a tower of {size / 1e9:.1f} GB in fp32",
            expected="at most 2 GB, as ONNX files have",
            fix="export it in int8, or with fewer words (`keep_words`)",
        )
    with quiet():
        program = torch.onnx.export(
            tower,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=(dims,),
            verbose=False,
        )
    assert program is not None  # noqa: S101 - None only for the older exporter
    model = program.model_proto
    _forget_origins(model)
    beside = size >= MAX_BYTES
    onnx.save_model(model, path, save_as_external_data=beside, location=f"{path.name}_data" if beside else None)


def _forget_origins(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about source files, paths of this machine among it; the names of modules stay."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    for node in model.graph.node:
        scopes = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(scopes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter talks about torchvision."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
