"""Every kind of graph of a checkpoint as a draft bundle: both towers of a kind, in a folder of its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from edgeclip.bundle import entries, fingerprint, sealed
from edgeclip.checkpoint import Checkpoint
from edgeclip.checkpoint.save import write_model_files
from edgeclip.data.prepare import Prepared
from edgeclip.errors import ConfigError
from edgeclip.export.float_graphs import pixels_of, write_float_graphs
from edgeclip.export.measure import unmeasured
from edgeclip.export.static_int8 import Range
from edgeclip.files import as_json, folder_written_atomically
from edgeclip.manifest import GRAPHS, MANIFEST, Golden, Manifest
from edgeclip.measure.bundle_process import TOWERS
from edgeclip.progress import task
from edgeclip.runtime.selftest import GOLDEN_TEXT
from edgeclip.tune.apart import called_apart
from edgeclip.tune.candidates import KINDS, TEACHER, Apart, FloatGraph, Kind
from edgeclip.tune.layers import input_ranges, layer_sensitivity
from edgeclip.tune.record import Candidate, LayerLoss, Student
from edgeclip.tune.trials import Trials


@dataclass
class Drafts:
    """The drafts in the trials' folder; a kind that can't be written is a recorded failure.

    Attributes:
        trials: where what was done before stands.
        cap_mb: memory that each process which writes graphs may take.
        models: what drafts were written of, by the `source` of their kinds.
        kinds: the names of those that were written.
        sensitivity: of the teacher's layers, by tower, the most sensitive first.
        ranges: of their inputs, by tower.
        students: by kind, what it is made of where that is not the teacher.
    """

    trials: Trials
    cap_mb: float | None
    models: dict[str, Checkpoint] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    sensitivity: dict[str, dict[str, LayerLoss]] = field(default_factory=dict)
    ranges: dict[str, dict[str, Range]] = field(default_factory=dict)
    students: dict[str, Student] = field(default_factory=dict)

    def export(self, source: str, model: Checkpoint, calibrate: Prepared | None) -> bool:
        """Write the float graphs of a model, in a process of its own; whether they could be written.

        Args:
            source: what its kinds call it.
            model: the model.
            calibrate: pairs to equalize the channels on, and of the teacher, to measure the layers' sensitivity and
                the ranges of their inputs on; None for one that was trained for int8 as it is.

        Raises:
            ConfigError: the teacher's float graphs, of which most others are made, can't be written.
        """
        self.models[source] = model
        place = self.trials.folder
        with task(f"making the float graphs of {source}", None):
            work = partial(self._apart, write_floats, model, float_folder(place, source), calibrate, source == TEACHER)
            floats = self.trials.run(f"float graphs of {source}", work)
        if floats.found is None:
            if source == TEACHER:
                raise ConfigError(
                    f"{model.name}, whose float graphs can't be written ({floats.failed})",
                    expected="what all candidates are made from",
                    fix=f"close what takes memory, remove {place} and run it again",
                )
            return False
        if source == TEACHER:
            self.sensitivity = msgspec.convert(floats.found["sensitivity"], dict[str, dict[str, LayerLoss]])
            self.ranges = msgspec.convert(floats.found["ranges"], dict[str, dict[str, Range]])
        return True

    def write(self, source: str, kinds: Sequence[Kind]) -> None:
        """Write a draft of each kind of a model whose float graphs were written, each in a process of its own."""
        model, place = self.models[source], self.trials.folder
        known = {tower: (list(found), self.ranges[tower]) for tower, found in self.sensitivity.items()}
        layers = known if source == TEACHER else {}
        with task(f"making candidates of {source}", len(kinds)) as advance:
            for kind in kinds:
                work = partial(_write_draft, kind, model, place, layers, self._apart)
                if self.trials.run(f"graphs of {kind.name}", work).failed is None:
                    self.kinds.append(kind.name)
                advance(1)

    def _apart(self, function: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
        return called_apart(function, *arguments, place=self.trials.folder, cap_mb=self.cap_mb)


def write_floats(model: Checkpoint, target: Path, calibrate: Prepared | None, with_layers: bool) -> dict[str, Any]:
    """Write a model's float graphs into a folder; where it is asked, what is known of its layers, as JSON has it."""
    with folder_written_atomically(target) as folder:
        (folder / "onnx").mkdir()
        written = write_float_graphs(model, folder, calibrate=calibrate)
        if calibrate is None or not with_layers:
            return {}
        return {
            "sensitivity": msgspec.to_builtins(layer_sensitivity(written, calibrate)),
            "ranges": input_ranges(written, calibrate),
        }


def _write_graphs(kind: str, graphs: Mapping[str, tuple[FloatGraph, Path]]) -> dict[str, Any]:
    apart = {tower: KINDS[kind].write(floats, target)._asdict() for tower, (floats, target) in graphs.items()}
    return {how: [f"{tower}: {name}" for tower in apart for name in apart[tower][how]] for how in Apart._fields}


def _write_draft(
    kind: Kind,
    checkpoint: Checkpoint,
    place: Path,
    layers: Mapping[str, tuple[Sequence[str], Mapping[str, Range]]],
    apart: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    with folder_written_atomically(draft_folder(place, kind.name)) as folder:
        (folder / "onnx").mkdir()
        write_model_files(checkpoint.config, checkpoint.preprocess_config, checkpoint.tokenizer, folder)
        graphs = {}
        for tower, source, target in zip(TOWERS, GRAPHS["fp32"], GRAPHS[kind.precision], strict=True):
            pixels = pixels_of(checkpoint.model.vision, checkpoint.preprocess_config) if tower == "image" else None
            path = float_folder(place, kind.source) / source
            by_loss, ranges = layers.get(tower, ((), {}))
            graphs[tower] = FloatGraph(path, by_loss, pixels, ranges), folder / target
        written = apart(_write_graphs, kind.name, graphs)
        write_draft_manifest(checkpoint, folder, kind, kind, written, threads=None)
    return written


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
    image: Kind,
    text: Kind,
    apart: Mapping[str, list[str]],
    *,
    threads: int | None,
) -> Manifest:
    """Write the manifest of a bundle whose embeddings nobody has measured yet, with the layers that are `Apart`."""
    files = entries(folder)
    blank = [0.0] * checkpoint.model.config.projection_dim
    manifest = replace(
        unmeasured(checkpoint, image.precision, apart["float_layers"]),
        int4_layers=apart["int4_layers"] or UNSET,
        text_precision=UNSET if text.precision == image.precision else text.precision,
        engine=UNSET if image.engine == "onnxruntime" else image.engine,
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
    model, place = drafts.models[image.source], drafts.trials.folder
    apart: dict[str, list[str]] = {how: [] for how in Apart._fields}
    write_model_files(model.config, model.preprocess_config, model.tokenizer, folder)
    for tower, kind in zip(TOWERS, (image, text), strict=True):
        name = GRAPHS[kind.precision][TOWERS.index(tower)]
        shutil.copyfile(draft_folder(place, kind.name) / name, folder / name)
        written = drafts.trials.done[f"graphs of {kind.name}"].found or {}
        for how, layers in apart.items():
            layers += [layer for layer in written[how] if layer.startswith(tower)]
    write_draft_manifest(model, folder, image, text, apart, threads=candidate.threads)
