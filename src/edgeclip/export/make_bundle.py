"""Make a bundle from a checkpoint: exact rewrites, int8 where it is asked for, and the measurements that prove it."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from edgeclip.bundle import CARD_MAX_LOSS, COMBINED_GRAPHS, MANIFEST, Card, GraphPrecision, Manifest
from edgeclip.checkpoint import Checkpoint
from edgeclip.checkpoint.save import write_model_files
from edgeclip.errors import CheckpointError
from edgeclip.export.combined_graph import write_combined_graph
from edgeclip.export.float_graphs import write_float_graphs
from edgeclip.export.int8_graphs import Int8Graphs, float_layers_of
from edgeclip.export.measure import card_on, measured, open_draft
from edgeclip.export.samples import Samples
from edgeclip.files import as_json, folder_written_atomically
from edgeclip.runtime.clip import ClipRuntime

logger = logging.getLogger(__name__)

Wanted = Literal["fp32", "int8", "auto"]


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
        CheckpointError: the embeddings are not finite.
    """
    reference = teacher or checkpoint
    with folder_written_atomically(out) as folder:
        write_model_files(checkpoint.model, checkpoint.preprocess_config, checkpoint.tokenizer, folder)
        draft = _draft(checkpoint, folder, samples, "fp32" if precision == "fp32" else "int8", threads, as_trained)
        if precision == "auto" and not _keeps_accuracy(draft, checkpoint, samples):
            draft = _draft(checkpoint, folder, samples, "fp32", threads, as_trained)
        if combined_graph:
            bundle = draft.bundle
            combined = folder / COMBINED_GRAPHS[bundle.manifest.precision]
            write_combined_graph(
                bundle.image_graph,
                bundle.text_graph,
                combined,
                logit_scale=draft.logit_scale,
                logit_bias=draft.logit_bias or 0.0,
            )
        manifest, card = measured(draft, reference, samples)
        if not all(map(math.isfinite, manifest.golden.image_embeds + manifest.golden.text_embeds)):
            raise CheckpointError(
                f"{manifest.precision} graphs, made from {checkpoint.name}, whose embeddings are not finite",
                expected="finite ones",
                fix="download the checkpoint again, or train it at a lower rate",
            )
        (folder / MANIFEST).write_bytes(as_json(manifest))
    return manifest, card


def _draft(
    checkpoint: Checkpoint,
    folder: Path,
    samples: Samples,
    precision: GraphPrecision,
    threads: int,
    as_trained: bool,
) -> ClipRuntime:
    """Write the graphs of one precision, in place of any others, and open them."""
    shutil.rmtree(folder / "onnx", ignore_errors=True)
    (folder / "onnx").mkdir()
    float_layers: list[str] = []
    if precision == "fp32":
        write_float_graphs(checkpoint, folder)
    else:
        float_layers = _write_int8(checkpoint, folder, samples, as_trained)
    return open_draft(checkpoint, folder, precision, float_layers, threads=threads)


def _write_int8(checkpoint: Checkpoint, folder: Path, samples: Samples, as_trained: bool) -> list[str]:
    """Write the int8 graphs; the layers that are left in float."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        (Path(scratch) / "onnx").mkdir()
        floats = write_float_graphs(checkpoint, Path(scratch), calibrate=None if as_trained else samples.calibrate)
        float_layers = [] if as_trained else float_layers_of(floats, samples.choose)
        Int8Graphs(floats).write(folder, float_layers)
    return float_layers


def _keeps_accuracy(draft: ClipRuntime, checkpoint: Checkpoint, samples: Samples) -> bool:
    """Whether int8 does, beside the same model in float, on pairs to choose on, which are not those to measure on.

    They are few: one pair among them is several points, and may be lost.
    """
    card = card_on(samples.choose, checkpoint, draft, samples)
    kept = card.is_close and card.lost_r1 <= max(CARD_MAX_LOSS, 100 / card.pairs)
    if not kept:
        logger.warning("int8 does not keep the accuracy: %s", card.summary)
    return kept
