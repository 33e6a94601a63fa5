"""Make a bundle from a checkpoint: exact rewrites, int8 where it is asked for, and the measurements that prove it."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgeclip.checkpoint import Checkpoint
from edgeclip.checkpoint.save import write_model_files
from edgeclip.evaluate.encoder import Encoder
from edgeclip.export.combined_graph import write_combined_graph
from edgeclip.export.float_graphs import write_float_graphs
from edgeclip.export.int8_graphs import Int8Graphs, float_layers_of
from edgeclip.export.measure import Described, card_on, check_golden, measured, open_draft
from edgeclip.export.samples import Samples
from edgeclip.files import as_json, folder_written_atomically
from edgeclip.manifest import CARD_MAX_LOSS, COMBINED_GRAPHS, MANIFEST, Card, GraphPrecision, Manifest
from edgeclip.runtime.clip import ClipRuntime

logger = logging.getLogger(__name__)

Wanted = Literal["fp32", "int8", "auto"]
WriteGraphs = Callable[[Path, GraphPrecision], list[str]]
"""Writes both graphs of a precision under their names into a folder, and gives the layers that it left in float."""


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
        samples: what to calibrate, choose and measure on.
        precision: fp32; int8 (see `quantize.scheme`); or auto: int8 if it keeps the accuracy on the pairs to choose on,
            else fp32.
        threads: for the golden embeddings and the measurements.
        combined_graph: also write both towers in one graph with the logits.
        teacher: what the release card compares with; by default the checkpoint itself.
        as_trained: int8 as it was trained for (see `quantize.deployed`): no size is moved and no layer left in float.

    Raises:
        ConfigError: the combined graph would be too large.
        CheckpointError: the embeddings are zero or not finite.
    """

    def write(folder: Path, wanted: GraphPrecision) -> list[str]:
        if wanted == "int8":
            return _write_int8(checkpoint, folder, samples, as_trained)
        write_float_graphs(checkpoint, folder)
        return []

    return write_bundle(
        checkpoint,
        write,
        checkpoint,
        out,
        samples,
        precision=precision,
        threads=threads,
        combined_graph=combined_graph,
        teacher=teacher,
    )


def write_bundle(
    model: Described,
    write: WriteGraphs,
    encoder: Encoder,
    out: Path,
    samples: Samples,
    *,
    precision: Wanted,
    threads: int,
    combined_graph: bool = False,
    teacher: Encoder | None = None,
) -> tuple[Manifest, Card]:
    """Write a bundle of any model whose graphs can be written; see `export_bundle`.

    Args:
        model: what the bundle says of itself.
        write: writes the graphs.
        encoder: the model in float, which int8 is held against where `precision` is auto.
        out: as for `export_bundle`, and so are the others.
        samples: what to measure on.
        precision: fp32, int8 or auto.
        threads: for the measurements.
        combined_graph: also write both towers in one graph.
        teacher: what the release card compares with; by default `encoder`.
    """
    with folder_written_atomically(out) as folder:
        write_model_files(model.config, model.preprocess_config, model.tokenizer, folder, model.lost_words)
        draft = _draft(model, write, folder, "fp32" if precision == "fp32" else "int8", threads)
        if precision == "auto" and not _keeps_accuracy(draft, encoder, samples):
            draft = _draft(model, write, folder, "fp32", threads)
        if combined_graph:
            _write_combined(draft, folder)
        manifest, card = measured(draft, teacher or encoder, samples)
        check_golden(manifest)
        (folder / MANIFEST).write_bytes(as_json(manifest))
    return manifest, card


def _draft(model: Described, write: WriteGraphs, folder: Path, precision: GraphPrecision, threads: int) -> ClipRuntime:
    """Write the graphs of one precision, in place of any others, and open them."""
    shutil.rmtree(folder / "onnx", ignore_errors=True)
    (folder / "onnx").mkdir()
    return open_draft(model, folder, precision, write(folder, precision), threads=threads)


def _write_combined(draft: ClipRuntime, folder: Path) -> None:
    bundle = draft.own_bundle
    write_combined_graph(
        bundle.graph("image"),
        bundle.graph("text"),
        folder / COMBINED_GRAPHS[bundle.manifest.precision],
        logit_scale=draft.logit_scale,
        logit_bias=draft.logit_bias or 0.0,
    )


def _write_int8(checkpoint: Checkpoint, folder: Path, samples: Samples, as_trained: bool) -> list[str]:
    """Write the int8 graphs; the layers that are left in float."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        (Path(scratch) / "onnx").mkdir()
        calibrate = None if as_trained else samples.calibrate
        floats = write_float_graphs(checkpoint, Path(scratch), calibrate=calibrate, to_be_rounded=True)
        float_layers = [] if as_trained else float_layers_of(floats, samples.choose)
        Int8Graphs(floats).write(folder, float_layers)
    return float_layers


def _keeps_accuracy(draft: ClipRuntime, encoder: Encoder, samples: Samples) -> bool:
    """Whether int8 does, beside the same model in float, on pairs to choose on, which are not those to measure on.

    They are few: one pair among them is several points, and may be lost.
    """
    card = card_on(samples.choose, encoder, draft, samples)
    kept = card.is_close and card.lost_r1 <= max(CARD_MAX_LOSS, 100 / card.pairs)
    if not kept:
        logger.warning("int8 does not keep the accuracy: %s", card.summary)
    return kept
