"""The float graphs of a model, written once: what every bundle of it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from edgeclip.checkpoint import Checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.data.prepare import Prepared
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.graph import write_image_graph, write_text_graph
from edgeclip.export.rewrites import scaled_inputs
from edgeclip.export.rewrites.pooled_last_block import PooledBlock
from edgeclip.export.surgery import end_texts
from edgeclip.export.tower_pairs import pair_inputs_of_tower, pairs_of_tower
from edgeclip.export.towers import ExportedTextTower, Tower, exported_image_tower
from edgeclip.manifest import GRAPHS
from edgeclip.model.fastvit import FastViT
from edgeclip.model.layers import Block
from edgeclip.model.vision import VisionTower
from edgeclip.progress import task
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.sensitivity import embed
from edgeclip.tokenizer import ClipTokenizer


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
    def pixels(self) -> PixelBytes | None:
        """What the image tower's `pixel_values` were made of, where a Linear is given them.

        Raises:
            ConfigError: see `PixelBytes.of`.
        """
        return pixels_of(self.checkpoint.model.vision, self.checkpoint.preprocess_config)


def pixels_of(tower: VisionTower | FastViT, preprocess: PreprocessConfig) -> PixelBytes | None:
    """What `pixel_values` are made of, where a Linear is given them; convolutions stay in float.

    Raises:
        ConfigError: see `PixelBytes.of`.
    """
    if isinstance(tower, FastViT) or tower.config.stem is not None:
        return None
    return PixelBytes.of(preprocess, tower.patch_embedding.in_features)


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
    image, text = exported_image_tower(checkpoint.model), ExportedTextTower(checkpoint.model).eval()
    image_graph, text_graph = (folder / name for name in GRAPHS["fp32"])
    images = texts = None
    if calibrate is not None:
        images = image_batches(calibrate, checkpoint.preprocess_config)
        texts = text_batches(calibrate, checkpoint.tokenizer)
    with task("making the float graphs", 2) as advance:
        image_alphas = equalized(image, images)
        write_image_graph(image, image_graph, to_be_rounded=to_be_rounded)
        advance(1)
        text_alphas = equalized(text, texts)
        write_text(text, checkpoint.tokenizer, text_graph, to_be_rounded=to_be_rounded)
        advance(1)
    return FloatGraphs(
        checkpoint, FloatTower(image, image_graph, image_alphas), FloatTower(text, text_graph, text_alphas)
    )


def write_text(text: ExportedTextTower, tokenizer: ClipTokenizer, path: Path, *, to_be_rounded: bool = False) -> None:
    """Write a text tower's graph, which ends texts that other clients cut with their end; see `write_image_graph`.

    Raises:
        ConfigError: it is too large for an ONNX file.
    """
    write_text_graph(text, path, to_be_rounded=to_be_rounded)
    if tokenizer.ends_texts:
        end_texts(path, tokenizer.eos_token_id)


def equalized(tower: Tower, batches: list[Tensor] | None) -> dict[str, float]:
    """Equalize a tower in place and pair its inputs; the alpha of each pair that was equalized."""
    if batches is None:
        return {}
    for block in (*tower.blocks, tower.last):
        if isinstance(block, Block | PooledBlock):
            scaled_inputs.rewrite(block)
    alphas = equalize(pairs_of_tower(tower), lambda: embed(tower, batches))
    pair_inputs_of_tower(tower)
    return alphas
