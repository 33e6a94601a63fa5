"""Make a bundle from a checkpoint: exact rewrites, int8 where it is asked for, and the measurements that prove it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeclip.bundle import (
    COMBINED_GRAPHS,
    GRAPHS,
    MANIFEST,
    SCHEMA,
    Bundle,
    Card,
    Golden,
    GraphPrecision,
    Manifest,
    entries,
    fingerprint,
    sealed,
)
from edgeclip.checkpoint import Checkpoint
from edgeclip.checkpoint.save import write_model_files
from edgeclip.errors import CheckpointError
from edgeclip.evaluate.release_card import release_card
from edgeclip.export.combined_graph import write_combined_graph
from edgeclip.export.graph import write_image_graph, write_text_graph
from edgeclip.export.int8 import PROJECTION, quantize_graph, round_what_is_stored
from edgeclip.export.samples import Samples
from edgeclip.export.surgery import end_texts
from edgeclip.export.tower_pairs import pairs_of_tower
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.files import folder_written_atomically
from edgeclip.image import normalize
from edgeclip.progress import Advance, task
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.sensitivity import choose_float_layers
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card
from edgeclip.version import __version__

logger = logging.getLogger(__name__)

Tower = TypeVar("Tower", ExportedImageTower, ExportedTextTower)
Wanted = Literal["fp32", "int8", "auto"]
CANDIDATES: dict[str, tuple[GraphPrecision, ...]] = {"fp32": ("fp32",), "int8": ("int8",), "auto": ("int8", "fp32")}
CALIBRATION_MIN_COSINE = 0.997
"""On the calibration samples; the release card asks for 0.995 on others."""
FLOAT_SHARE = 4
"""At most one in so many layers is left in float."""


def export_bundle(
    checkpoint: Checkpoint,
    out: Path,
    samples: Samples,
    *,
    precision: Wanted,
    threads: int,
    combined_graph: bool = False,
    teacher: Checkpoint | None = None,
    as_trained: bool = False,
) -> tuple[Manifest, Card]:
    """Write a bundle, whole or not at all.

    Args:
        checkpoint: the checkpoint.
        out: the bundle's folder; an earlier one is replaced.
        samples: what to calibrate and measure on.
        precision: fp32; int8 (see `quantize.scheme`); or auto, int8 if its release card keeps the accuracy, else fp32.
        threads: for the golden embeddings and the measurements.
        combined_graph: also write both towers in one graph with the logits.
        teacher: what the release card compares with; by default the checkpoint itself.
        as_trained: int8 as it was trained for (see `quantize.deployed`): no size is moved and no layer left in float.

    Raises:
        ConfigError: the combined graph would be too large.
        CheckpointError: the embeddings are not finite.
    """
    with folder_written_atomically(out) as folder:
        write_model_files(checkpoint.model, checkpoint.preprocess_config, checkpoint.tokenizer, folder)
        (folder / "onnx").mkdir()
        for candidate in CANDIDATES[precision]:
            with task(f"making the {candidate} graphs", 2) as advance:
                float_layers = _write_graphs(checkpoint, folder, samples, candidate, as_trained, advance)
            image, text = (folder / name for name in GRAPHS[candidate])
            end_texts(text, checkpoint.tokenizer.eos_token_id)
            if combined_graph:
                write_combined_graph(
                    image, text, checkpoint.model.logit_scale.item(), folder / COMBINED_GRAPHS[candidate]
                )
            manifest, card = _measured(
                checkpoint, folder, samples, float_layers, candidate, threads, teacher or checkpoint
            )
            if card.keeps_accuracy or candidate == CANDIDATES[precision][-1]:
                break
            logger.warning("%s does not keep the accuracy: %s", candidate, card.summary)
            for graph in (folder / "onnx").iterdir():
                graph.unlink()
        if not all(map(math.isfinite, manifest.golden.image_embeds + manifest.golden.text_embeds)):
            raise CheckpointError(
                f"{candidate} graphs, made from {checkpoint.name}, whose embeddings are not finite",
                expected="finite ones",
                fix="check the weights, or train at a lower rate",
            )
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest, card


def _write_graphs(
    checkpoint: Checkpoint,
    folder: Path,
    samples: Samples,
    precision: GraphPrecision,
    as_trained: bool,
    advance: Advance,
) -> list[str]:
    """Write the graph of the image tower, then that of the text tower.

    Returns:
        The layers that were too sensitive for int8 and stay in float.
    """
    image_graph, text_graph = (folder / name for name in GRAPHS[precision])
    images: list[NDArray[Any]] = []
    texts: list[NDArray[Any]] = []
    if precision == "int8" and not as_trained:
        images = [normalize(pixels[None], checkpoint.preprocess_config) for pixels in samples.calibrate.pixels]
        texts = [checkpoint.tokenizer([text], pad_to_longest=True) for text in samples.calibrate.first_captions]
    image_layers = _write_graph(
        ExportedImageTower(checkpoint.model).eval(), write_image_graph, image_graph, precision, images
    )
    advance(1)
    text_layers = _write_graph(
        ExportedTextTower(checkpoint.model).eval(), write_text_graph, text_graph, precision, texts
    )
    advance(1)
    return [f"image: {name}" for name in image_layers] + [f"text: {name}" for name in text_layers]


def _write_graph(
    tower: Tower,
    write: Callable[[Tower, Path], None],
    path: Path,
    precision: GraphPrecision,
    inputs: list[NDArray[Any]],
) -> list[str]:
    """Write a tower; for int8 after adapting it to some inputs, if there are any."""
    if precision == "fp32":
        write(tower, path)
        return []
    float_layers = _adapt(tower, inputs) if inputs else []
    whole = path.with_suffix(".fp32")
    write(tower, whole)
    quantize_graph(whole, path, float_layers=float_layers)
    whole.unlink()
    return float_layers


def _adapt(tower: ExportedImageTower | ExportedTextTower, samples: list[NDArray[Any]]) -> list[str]:
    """Equalize a tower's channels in place, and name the layers that int8 would still cost too much."""

    @torch.no_grad()
    def embeds() -> Tensor:
        return torch.cat([tower(torch.from_numpy(sample)) for sample in samples])

    equalize(pairs_of_tower(tower), embeds)
    layers = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear) and name != PROJECTION]
    exact_NE = embeds()
    round_what_is_stored(tower)
    float_layers, _ = choose_float_layers(
        tower, layers, embeds, exact_NE, min_cosine=CALIBRATION_MIN_COSINE, at_most=len(layers) // FLOAT_SHARE
    )
    return float_layers


def _measured(
    checkpoint: Checkpoint,
    folder: Path,
    samples: Samples,
    float_layers: list[str],
    precision: GraphPrecision,
    threads: int,
    teacher: Checkpoint,
) -> tuple[Manifest, Card]:
    """Open the graphs as a device would, and measure."""
    files = entries(folder)
    draft = Manifest(
        schema=SCHEMA,
        edgeclip=__version__,
        teacher=checkpoint.name,
        precision=precision,
        float_layers=float_layers,
        logit_scale=checkpoint.model.logit_scale.item(),
        fingerprint=fingerprint(files),
        golden=Golden(text=GOLDEN_TEXT, image_embeds=[], text_embeds=[]),
        card=None,
        files=files,
    )
    clip = ClipRuntime(Bundle(folder, draft, checkpoint.model.config, checkpoint.preprocess_config), threads=threads)
    golden = Golden(
        text=GOLDEN_TEXT,
        image_embeds=_golden(clip.encode_image([test_card(checkpoint.model.config.vision.image_size)])[0]),
        text_embeds=_golden(clip.encode_text([GOLDEN_TEXT])[0]),
    )
    measured = samples.measure
    card = release_card(teacher, clip, measured.crops, measured.first_captions, data=samples.name, seed=samples.seed)
    return sealed(msgspec.structs.replace(draft, golden=golden, card=card)), card


def _golden(embeds_E: NDArray[Any]) -> list[float]:
    """More digits than these take room and say nothing: kernels differ by more."""
    return [round(value, 6) for value in embeds_E.tolist()]
