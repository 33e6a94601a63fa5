"""Make a bundle from a checkpoint: exact rewrites, int8 where it is asked for, and the measurements that prove it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeclip import __version__
from edgeclip.bundle import (
    GRAPHS,
    JOINT_GRAPHS,
    MANIFEST,
    SCHEMA,
    Bundle,
    Card,
    Golden,
    Manifest,
    Precision,
    entries,
    fingerprint,
    sealed,
)
from edgeclip.checkpoint import Loaded
from edgeclip.checkpoint.save import write_model_files
from edgeclip.errors import CheckpointError
from edgeclip.export.card import measure
from edgeclip.export.graph import write_image_graph, write_text_graph
from edgeclip.export.int8 import PROJECTION, quantize_graph, round_what_is_stored
from edgeclip.export.joint import write_joint_graph
from edgeclip.export.joints import joints
from edgeclip.export.samples import Samples
from edgeclip.export.surgery import end_texts
from edgeclip.export.towers import ImageTower, TextTower
from edgeclip.files import folder_written_atomically
from edgeclip.image import normalize
from edgeclip.progress import Advance, stage
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.sensitivity import choose_float_layers
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card

Tower = TypeVar("Tower", ImageTower, TextTower)
Wanted = Literal["fp32", "int8", "auto"]
CANDIDATES: dict[str, tuple[Precision, ...]] = {"fp32": ("fp32",), "int8": ("int8",), "auto": ("int8", "fp32")}
MIN_COSINE = 0.997
"""On the calibration samples; the release card asks for 0.995 on others."""
FLOAT_SHARE = 4
"""At most one in so many layers is left in float."""


def export_bundle(
    loaded: Loaded,
    out: Path,
    samples: Samples,
    *,
    precision: Wanted,
    threads: int,
    joint_graph: bool = False,
    teacher: Loaded | None = None,
    as_trained: bool = False,
) -> tuple[Manifest, Card]:
    """Write a bundle, whole or not at all.

    Args:
        loaded: the checkpoint.
        out: the bundle's folder; an earlier one is replaced.
        samples: what to calibrate and measure on.
        precision: fp32; int8 (see `quantize.scheme`); or auto, int8 if its release card keeps the accuracy, else fp32.
        threads: for the golden embeddings and the measurements.
        joint_graph: also write both towers in one graph with the logits.
        teacher: what the release card compares with; by default the checkpoint itself.
        as_trained: int8 as it was trained for (see `quantize.deployed`): no size is moved and no layer left in float.

    Raises:
        ConfigError: the joint graph would be too large.
        CheckpointError: the embeddings are not finite.
    """
    with folder_written_atomically(out) as folder:
        write_model_files(loaded.model, loaded.preprocess_config, loaded.tokenizer, folder)
        (folder / "onnx").mkdir()
        for candidate in CANDIDATES[precision]:
            with stage(f"making the {candidate} graphs", 2) as advance:
                float_layers = _write_graphs(loaded, folder, samples, candidate, as_trained, advance)
            image, text = (folder / name for name in GRAPHS[candidate])
            end_texts(text, loaded.tokenizer.eos_token_id)
            if joint_graph:
                write_joint_graph(image, text, loaded.model.logit_scale.item(), folder / JOINT_GRAPHS[candidate])
            manifest, card = _measured(loaded, folder, samples, float_layers, candidate, threads, teacher or loaded)
            if card.keeps_accuracy or candidate == CANDIDATES[precision][-1]:
                break
            print(f"{candidate} does not keep the accuracy: {card.summary}", file=sys.stderr)
            for graph in (folder / "onnx").iterdir():
                graph.unlink()
        if not all(map(math.isfinite, manifest.golden.image_embeds + manifest.golden.text_embeds)):
            raise CheckpointError(
                f"{candidate} graphs, made from {loaded.name}, whose embeddings are not finite",
                expected="finite ones",
                fix="check the weights, or train at a lower rate",
            )
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest, card


def _write_graphs(
    loaded: Loaded, folder: Path, samples: Samples, precision: Precision, as_trained: bool, advance: Advance
) -> list[str]:
    """Write the graph of the image tower, then that of the text tower.

    Returns:
        The layers that were too sensitive for int8 and stay in float.
    """
    image_graph, text_graph = (folder / name for name in GRAPHS[precision])
    images: list[NDArray[Any]] = []
    texts: list[NDArray[Any]] = []
    if precision == "int8" and not as_trained:
        images = [normalize(pixels[None], loaded.preprocess_config) for pixels in samples.calibration.pixels]
        texts = [loaded.tokenizer([text], pad_to_longest=True) for text in samples.calibration.first_captions]
    image_layers = _write_graph(ImageTower(loaded.model).eval(), write_image_graph, image_graph, precision, images)
    advance(1)
    text_layers = _write_graph(TextTower(loaded.model).eval(), write_text_graph, text_graph, precision, texts)
    advance(1)
    return [f"image: {name}" for name in image_layers] + [f"text: {name}" for name in text_layers]


def _write_graph(
    tower: Tower,
    write: Callable[[Tower, Path], None],
    path: Path,
    precision: Precision,
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


def _adapt(tower: ImageTower | TextTower, samples: list[NDArray[Any]]) -> list[str]:
    """Equalize a tower's channels in place, and name the layers that int8 would still cost too much."""

    @torch.no_grad()
    def embeds() -> Tensor:
        return torch.cat([tower(torch.from_numpy(sample)) for sample in samples])

    equalize(joints(tower), embeds)
    layers = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear) and name != PROJECTION]
    exact_NE = embeds()
    round_what_is_stored(tower)
    float_layers, _ = choose_float_layers(
        tower, layers, embeds, exact_NE, min_cosine=MIN_COSINE, at_most=len(layers) // FLOAT_SHARE
    )
    return float_layers


def _measured(
    loaded: Loaded,
    folder: Path,
    samples: Samples,
    float_layers: list[str],
    precision: Precision,
    threads: int,
    teacher: Loaded,
) -> tuple[Manifest, Card]:
    """Open the graphs as a device would, and measure."""
    files = entries(folder)
    draft = Manifest(
        schema=SCHEMA,
        edgeclip=__version__,
        teacher=loaded.name,
        precision=precision,
        float_layers=float_layers,
        logit_scale=loaded.model.logit_scale.item(),
        fingerprint=fingerprint(files),
        golden=Golden(text=GOLDEN_TEXT, image_embeds=[], text_embeds=[]),
        card=None,
        files=files,
    )
    clip = ClipRuntime(Bundle(folder, draft, loaded.model.config, loaded.preprocess_config), threads=threads)
    golden = Golden(
        text=GOLDEN_TEXT,
        image_embeds=_golden(clip.encode_image([test_card(loaded.model.config.vision.image_size)])[0]),
        text_embeds=_golden(clip.encode_text([GOLDEN_TEXT])[0]),
    )
    card = measure(teacher, clip, samples)
    return sealed(msgspec.structs.replace(draft, golden=golden, card=card)), card


def _golden(embeds_E: NDArray[Any]) -> list[float]:
    """More digits than these take room and say nothing: kernels differ by more."""
    return [round(value, 6) for value in embeds_E.tolist()]
