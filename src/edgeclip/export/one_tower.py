"""A bundle of one tower alone.

There are no pairs to find, so that its embeddings are held against those of the tower in float instead.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from msgspec import UNSET
from msgspec.structs import replace
from torch import Tensor
from torch.nn import functional

from edgeclip.bundle import Bundle, entries, fingerprint, sealed
from edgeclip.checkpoint.one_tower import OneTower
from edgeclip.data.prepare import Prepared
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.float_graphs import equalized, pixels_of, write_text
from edgeclip.export.graph import write_image_graph
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.int8_graphs import IMAGE, TEXT, chosen_layers
from edgeclip.export.make_bundle import Wanted
from edgeclip.export.measure import check_golden, shortened
from edgeclip.export.samples import Samples
from edgeclip.export.towers import ExportedTextTower, Tower, exported_image_tower
from edgeclip.files import as_json, folder_written_atomically
from edgeclip.hf_config import write_tower
from edgeclip.hf_preprocess import write_preprocess
from edgeclip.manifest import GRAPHS, MANIFEST, SCHEMA, Closeness, Golden, GraphPrecision, Manifest
from edgeclip.quantize.sensitivity import embed
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card
from edgeclip.version import __version__


def export_one_tower(
    source: OneTower, out: Path, samples: Samples, *, precision: Wanted, threads: int
) -> tuple[Manifest, Closeness]:
    """Write the bundle, whole or not at all; the arguments are those of `export_bundle`.

    Raises:
        CheckpointError: its embeddings are zero or not finite.
        EdgeclipError: it is a text tower without a usable tokenizer.
    """
    with folder_written_atomically(out) as folder:
        _write_small_files(source, folder)
        draft = _draft(source, folder, samples, "fp32" if precision == "fp32" else "int8", threads)
        if precision == "auto" and not _closeness(draft, source, samples.choose).keeps_accuracy:
            draft = _draft(source, folder, samples, "fp32", threads)
        closeness = _closeness(draft, source, samples.measure)
        manifest = _finished(draft, closeness)
        check_golden(manifest)
        (folder / MANIFEST).write_bytes(as_json(manifest))
    return manifest, closeness


def _write_small_files(source: OneTower, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(write_tower(source.config), indent=2) + "\n")
    if source.preprocess_config is None:
        source.tokenizer.save(folder)
    else:
        preprocess = json.dumps(write_preprocess(source.preprocess_config), indent=2)
        (folder / "preprocessor_config.json").write_text(preprocess + "\n")


def _batches(source: OneTower, pairs: Prepared) -> list[Tensor]:
    if source.preprocess_config is None:
        return text_batches(pairs, source.tokenizer)
    return image_batches(pairs, source.preprocess_config)


def _exported(source: OneTower) -> Tower:
    return ExportedTextTower(source).eval() if source.config.kind == "text" else exported_image_tower(source)


def _write_float(source: OneTower, tower: Tower, path: Path, *, to_be_rounded: bool = False) -> None:
    if isinstance(tower, ExportedTextTower):
        write_text(tower, source.tokenizer, path, to_be_rounded=to_be_rounded)
    else:
        write_image_graph(tower, path, to_be_rounded=to_be_rounded)


def _draft(source: OneTower, folder: Path, samples: Samples, precision: GraphPrecision, threads: int) -> ClipRuntime:
    """Write the graph of one precision, in place of any other, and open it as a device would."""
    shutil.rmtree(folder / "onnx", ignore_errors=True)
    (folder / "onnx").mkdir()
    kind, tower = source.config.kind, _exported(source)
    path, float_layers = folder / GRAPHS[precision][kind == "text"], list[str]()
    if precision == "fp32":
        _write_float(source, tower, path)
    else:
        pixels = None
        if source.preprocess_config is not None:
            pixels = pixels_of(source.vision, source.preprocess_config)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            graph = Path(scratch) / "float.onnx"
            equalized(tower, _batches(source, samples.calibrate))
            _write_float(source, tower, graph, to_be_rounded=True)
            float_layers = chosen_layers(tower, _batches(source, samples.choose), pixels)
            Int8Tower(graph, pixels).write(path, float_layers=float_layers)
    manifest = Manifest(
        schema=SCHEMA,
        edgeclip=__version__,
        teacher=source.name,
        precision=precision,
        float_layers=[f"{TEXT if kind == 'text' else IMAGE}{layer}" for layer in float_layers],
        fingerprint="",
        golden=Golden(text=GOLDEN_TEXT, image_embeds=[], text_embeds=[]),
        card=None,
        files={},
        fusion=UNSET,
        tower=kind,
    )
    return ClipRuntime(
        Bundle(folder=folder, image_preprocess=source.preprocess_config, manifest=manifest, towers=source.config),
        threads=threads,
    )


def _closeness(draft: ClipRuntime, source: OneTower, pairs: Prepared) -> Closeness:
    """Cosines between the bundle's embeddings and those of the tower in float."""
    if source.preprocess_config is None:
        ids = source.tokenizer.token_ids(pairs.first_captions)
        exact_NE = embed(source.text, [torch.tensor(source.tokenizer.padded([row])) for row in ids])
        found_NE = draft.encode_text(pairs.first_captions)
    else:
        exact_NE = embed(source.vision, _batches(source, pairs))
        found_NE = draft.encode_image(pairs.crops)
    cosines_N = functional.cosine_similarity(torch.from_numpy(found_NE), exact_NE, dim=-1)
    return Closeness(mean=cosines_N.mean().item(), smallest=cosines_N.min().item())


def _finished(draft: ClipRuntime, closeness: Closeness) -> Manifest:
    """The manifest with golden embeddings and every file."""
    bundle = draft.own_bundle
    embeds = {"image": list[float](), "text": list[float]()}
    if "image" in draft.towers:
        embeds["image"] = shortened(draft.encode_image([test_card(bundle.image_size)])[0])
    else:
        embeds["text"] = shortened(draft.encode_text([GOLDEN_TEXT])[0])
    golden = Golden(text=GOLDEN_TEXT, image_embeds=embeds["image"], text_embeds=embeds["text"])
    files = entries(bundle.folder)
    return sealed(
        replace(bundle.manifest, fingerprint=fingerprint(files), golden=golden, files=files, closeness=closeness)
    )
