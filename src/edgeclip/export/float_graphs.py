"""The float graphs of a model, written once: what every bundle of it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from edgeclip.bundle import GRAPHS
from edgeclip.checkpoint import Checkpoint
from edgeclip.data.prepare import Prepared
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.graph import write_image_graph, write_text_graph
from edgeclip.export.rewrites import scaled_inputs
from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.export.surgery import end_texts
from edgeclip.export.tower_pairs import pair_inputs_of_tower, pairs_of_tower
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.model.layers import Block
from edgeclip.progress import task
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.sensitivity import embed

Tower: TypeAlias = ExportedImageTower | ExportedTextTower


@dataclass(frozen=True)
class FloatTower:
    """A tower as it is exported, its float graph, and the alpha of each pair of it that was equalized."""

    tower: Tower
    graph: Path
    alphas: dict[str, float]


@dataclass(frozen=True)
class FloatGraphs:
    """Both towers of a checkpoint."""

    checkpoint: Checkpoint
    image: FloatTower
    text: FloatTower

    @property
    def pixels(self) -> PixelBytes:
        """What the image tower's `pixel_values` were made of.

        Raises:
            ConfigError: see `PixelBytes.of`.
        """
        return pixels_of(self.checkpoint)


def pixels_of(checkpoint: Checkpoint) -> PixelBytes:
    """What `pixel_values` are made of.

    Raises:
        ConfigError: see `PixelBytes.of`.
    """
    return PixelBytes.of(checkpoint.preprocess_config, checkpoint.model.vision.patch_embedding.in_features)


def write_float_graphs(
    checkpoint: Checkpoint, folder: Path, *, calibrate: Prepared | None = None, to_be_rounded: bool = False
) -> FloatGraphs:
    """Write the graph of each tower under its name in a bundle.

    Args:
        checkpoint: the checkpoint, which is left as it is.
        folder: where a bundle is made; its `onnx` folder must be there.
        calibrate: pairs to equalize the channels on, for int8; None leaves the weights as they are, in their order.
        to_be_rounded: see `graph.write_image_graph`.

    Raises:
        ConfigError: a tower is too large for an ONNX file.
    """
    image, text = ExportedImageTower(checkpoint.model).eval(), ExportedTextTower(checkpoint.model).eval()
    image_graph, text_graph = (folder / name for name in GRAPHS["fp32"])
    images = texts = None
    if calibrate is not None:
        images = image_batches(calibrate, checkpoint.preprocess_config)
        texts = text_batches(calibrate, checkpoint.tokenizer)
    with task("making the float graphs", 2) as advance:
        image_alphas = _equalized(image, images)
        write_image_graph(image, image_graph, to_be_rounded=to_be_rounded)
        advance(1)
        text_alphas = _equalized(text, texts)
        write_text_graph(text, text_graph, to_be_rounded=to_be_rounded)
        if checkpoint.tokenizer.ends_texts:
            end_texts(text_graph, checkpoint.tokenizer.eos_token_id)
        advance(1)
    return FloatGraphs(
        checkpoint, FloatTower(image, image_graph, image_alphas), FloatTower(text, text_graph, text_alphas)
    )


def _equalized(tower: Tower, batches: list[Tensor] | None) -> dict[str, float]:
    """Equalize a tower in place and pair its inputs; the alpha of each pair that was equalized."""
    if batches is None:
        return {}
    for block in (*tower.blocks, tower.last):
        if isinstance(block, Block | PooledBlock):
            scaled_inputs.rewrite(block)
    alphas = equalize(pairs_of_tower(tower), lambda: embed(tower, batches))
    pair_inputs_of_tower(tower)
    return alphas
