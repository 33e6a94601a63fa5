"""Every kind of graph of a checkpoint as a draft bundle: both towers of a kind, in a folder of its name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from edgeclip.bundle import GRAPHS, MANIFEST, Golden, GraphPrecision, Manifest, entries, fingerprint, sealed
from edgeclip.checkpoint import Checkpoint
from edgeclip.checkpoint.save import write_model_files
from edgeclip.data.prepare import Prepared
from edgeclip.errors import EdgeclipError
from edgeclip.export.float_graphs import pixels_of, write_float_graphs
from edgeclip.export.measure import unmeasured
from edgeclip.files import as_json, folder_written_atomically
from edgeclip.progress import task
from edgeclip.runtime.selftest import GOLDEN_TEXT
from edgeclip.tune.candidates import KINDS, FloatGraph, Kind
from edgeclip.tune.layers import layer_sensitivity
from edgeclip.tune.trials import TrialError, Trials

FLOAT = "float"
IMAGE, TEXT = "image", "text"


def write_drafts(checkpoint: Checkpoint, trials: Trials, calibrate: Prepared) -> dict[str, dict[str, float]]:
    """Write a draft of each kind into the trials' folder; a kind that can't be written is a recorded failure.

    Args:
        checkpoint: what they are made from.
        trials: where what was done before stands.
        calibrate: pairs to equalize the channels on, and to measure the layers' sensitivity on.

    Returns:
        The layers' sensitivity by tower, largest first.
    """
    floats = trials.folder / FLOAT

    def write_floats() -> dict[str, Any]:
        with folder_written_atomically(floats) as folder:
            (folder / "onnx").mkdir()
            written = write_float_graphs(checkpoint, folder, calibrate=calibrate)
            with task("layer sensitivity", None):
                return layer_sensitivity(written, calibrate)

    sensitivity = trials.run("float graphs", write_floats).found or {}
    with task("making the candidates", len(KINDS)) as advance:
        for kind in KINDS.values():
            trials.run(f"graphs of {kind.name}", partial(_write_kind, kind, checkpoint, trials.folder, sensitivity))
            advance(1)
    return sensitivity


def _write_kind(
    kind: Kind, checkpoint: Checkpoint, place: Path, sensitivity: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    float_layers: list[str] = []
    with folder_written_atomically(draft_folder(place, kind.name)) as folder:
        (folder / "onnx").mkdir()
        write_model_files(checkpoint.config, checkpoint.preprocess_config, checkpoint.tokenizer, folder)
        for tower, source, target in zip((IMAGE, TEXT), GRAPHS["fp32"], GRAPHS[kind.precision], strict=True):
            try:
                pixels = pixels_of(checkpoint) if tower == IMAGE else None
                floats = FloatGraph(place / FLOAT / source, list(sensitivity[tower]), pixels)
                kept = kind.write(floats, folder / target)
            except (EdgeclipError, MemoryError) as error:
                raise TrialError(str(error) or "out of memory") from error
            float_layers += [f"{tower}: {name}" for name in kept]
        write_draft_manifest(checkpoint, folder, kind.precision, kind.precision, float_layers, threads=None)
    return {"float_layers": float_layers}


def draft_folder(place: Path, kind: str) -> Path:
    """Where the draft of a kind is."""
    return place / kind.replace(" ", "-").replace(",", "").replace("/", "-in-")


def write_draft_manifest(
    checkpoint: Checkpoint,
    folder: Path,
    image: GraphPrecision,
    text: GraphPrecision,
    float_layers: Sequence[str],
    *,
    threads: int | None,
) -> Manifest:
    """Write the manifest of a bundle whose embeddings nobody has measured yet."""
    files = entries(folder)
    blank = [0.0] * checkpoint.model.config.projection_dim
    manifest = replace(
        unmeasured(checkpoint, image, list(float_layers)),
        text_precision=UNSET if text == image else text,
        threads=UNSET if threads is None else threads,
        fingerprint=fingerprint(files),
        golden=Golden(text=GOLDEN_TEXT, image_embeds=blank, text_embeds=blank),
        files=files,
    )
    (folder / MANIFEST).write_bytes(as_json(sealed(manifest)))
    return manifest


def put_together(
    checkpoint: Checkpoint,
    place: Path,
    image: str,
    text: str,
    folder: Path,
    *,
    threads: int,
    float_layers: Mapping[str, Sequence[str]],
) -> None:
    """Fill an empty folder with a bundle of one kind's image graph and another's text graph."""
    (folder / "onnx").mkdir()
    write_model_files(checkpoint.config, checkpoint.preprocess_config, checkpoint.tokenizer, folder)
    for index, kind in enumerate((KINDS[image], KINDS[text])):
        name = GRAPHS[kind.precision][index]
        shutil.copyfile(draft_folder(place, kind.name) / name, folder / name)
    kept = [
        name for tower, kind in ((IMAGE, image), (TEXT, text)) for name in float_layers[kind] if name.startswith(tower)
    ]
    write_draft_manifest(checkpoint, folder, KINDS[image].precision, KINDS[text].precision, kept, threads=threads)
