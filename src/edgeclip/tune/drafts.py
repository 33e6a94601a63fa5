"""Every kind of graph of a checkpoint as a draft bundle: both towers of a kind, in a folder of its name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from edgeclip.measure.bundle_process import TOWERS
from edgeclip.progress import task
from edgeclip.runtime.selftest import GOLDEN_TEXT
from edgeclip.tune.candidates import KINDS, TEACHER, FloatGraph, Kind, kinds_of
from edgeclip.tune.layers import layer_sensitivity
from edgeclip.tune.record import Candidate, Student
from edgeclip.tune.trials import TrialError, Trials


@dataclass
class Drafts:
    """The drafts in the trials' folder; a kind that can't be written is a recorded failure.

    Attributes:
        trials: where what was done before stands.
        models: what drafts were written of, by the `source` of their kinds.
        kinds: the names of those that were written.
        sensitivity: of the teacher's layers, by tower, largest first.
        students: by kind, what it is made of where that is not the teacher.
    """

    trials: Trials
    models: dict[str, Checkpoint] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    sensitivity: dict[str, dict[str, float]] = field(default_factory=dict)
    students: dict[str, Student] = field(default_factory=dict)

    def write(self, source: str, model: Checkpoint, calibrate: Prepared | None) -> None:
        """Write a draft of each kind of a model.

        Args:
            source: what its kinds call it.
            model: the model.
            calibrate: pairs to equalize the channels on, and of the teacher, to measure the layers' sensitivity on;
                None for one that was trained for int8 as it is.
        """
        self.models[source] = model
        floats, kinds = float_folder(self.trials.folder, source), kinds_of(source)

        def write_floats() -> dict[str, Any]:
            with folder_written_atomically(floats) as folder:
                (folder / "onnx").mkdir()
                written = write_float_graphs(model, folder, calibrate=calibrate)
                if source != TEACHER or calibrate is None:
                    return {}
                with task("layer sensitivity", None):
                    return layer_sensitivity(written, calibrate)

        found = self.trials.run(f"float graphs of {source}", write_floats).found or {}
        if source == TEACHER:
            self.sensitivity = found
        with task(f"making the candidates of {source}", len(kinds)) as advance:
            for kind in kinds:
                work = partial(_write_kind, kind, model, self.trials.folder, found)
                if self.trials.run(f"graphs of {kind.name}", work).failed is None:
                    self.kinds.append(kind.name)
                advance(1)


def _write_kind(
    kind: Kind, checkpoint: Checkpoint, place: Path, sensitivity: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    float_layers: list[str] = []
    with folder_written_atomically(draft_folder(place, kind.name)) as folder:
        (folder / "onnx").mkdir()
        write_model_files(checkpoint.config, checkpoint.preprocess_config, checkpoint.tokenizer, folder)
        for tower, source, target in zip(TOWERS, GRAPHS["fp32"], GRAPHS[kind.precision], strict=True):
            try:
                pixels = pixels_of(checkpoint) if tower == "image" else None
                path = float_folder(place, kind.source) / source
                kept = kind.write(FloatGraph(path, list(sensitivity.get(tower, ())), pixels), folder / target)
            except (EdgeclipError, MemoryError) as error:
                raise TrialError(str(error) or "out of memory") from error
            float_layers += [f"{tower}: {name}" for name in kept]
        write_draft_manifest(checkpoint, folder, kind.precision, kind.precision, float_layers, threads=None)
    return {"float_layers": float_layers}


def float_folder(place: Path, source: str) -> Path:
    """Where a model's float graphs are."""
    return place / _as_name(f"float {source}")


def draft_folder(place: Path, kind: str) -> Path:
    """Where the draft of a kind is."""
    return place / _as_name(kind)


def _as_name(words: str) -> str:
    return words.replace(" ", "-").replace(",", "").replace("%", "").replace("/", "-in-")


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


def put_together(drafts: Drafts, candidate: Candidate, folder: Path) -> None:
    """Fill an empty folder with the bundle of a candidate."""
    (folder / "onnx").mkdir()
    image, text = KINDS[candidate.image], KINDS[candidate.text]
    model, place, kept = drafts.models[image.source], drafts.trials.folder, list[str]()
    write_model_files(model.config, model.preprocess_config, model.tokenizer, folder)
    for tower, kind in zip(TOWERS, (image, text), strict=True):
        name = GRAPHS[kind.precision][TOWERS.index(tower)]
        shutil.copyfile(draft_folder(place, kind.name) / name, folder / name)
        written = drafts.trials.done[f"graphs of {kind.name}"].found or {}
        kept += [layer for layer in written["float_layers"] if layer.startswith(tower)]
    write_draft_manifest(model, folder, image.precision, text.precision, kept, threads=candidate.threads)
