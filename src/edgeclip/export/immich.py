"""The layout that Immich's machine-learning service reads: open_clip's, with two graphs for one image and one text.

    config.json         visual/model.onnx   visual/preprocess_cfg.json
    edgeclip.json       textual/model.onnx  textual/tokenizer.json  textual/tokenizer_config.json

edgeclip.json, which Immich ignores, says that edgeclip wrote the folder, and from what.

Source: immich-app/immich, machine-learning/immich_ml/models/clip/{visual,textual}.py.

Shape legend: S image size, L the context length, E embedding size.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec
import onnx
from PIL.Image import Resampling

from edgeclip.bundle import Bundle, entries, read_bundle
from edgeclip.checkpoint import Checkpoint
from edgeclip.config import ClipConfig, Config, Fusion, PreprocessConfig, TextCleaning
from edgeclip.errors import ConfigError
from edgeclip.export.make_bundle import Wanted, export_bundle
from edgeclip.export.samples import Samples
from edgeclip.export.surgery import load_graph, name_sizes, prefixed, put_in_front, rename
from edgeclip.files import folder_written_atomically
from edgeclip.manifest import MANIFEST, SCHEMA, Card, FileEntry, GraphPrecision

CUT_AT_END = """
cut_at_end (int32[1, {length}] text) => (int64[1, tokens] kept_ids)
<int64 eos = {{{eos}}}, int64[1, 1] end_id = {{{eos}}}, int64[1] zero = {{0}}, int64[1] one = {{1}}>
{{
    ids = Cast<to = 7>(text)
    ids_and_end = Concat<axis = 1>(ids, end_id)
    is_end = Equal(ids_and_end, eos)
    is_end_int = Cast<to = 7>(is_end)
    end = ArgMax<axis = 1, keepdims = 0>(is_end_int)
    length = Add(end, one)
    kept_ids = Slice(ids, zero, length, one)
}}
"""
CUT_AT_PADDING = """
cut_at_padding (int32[1, {length}] text) => (int64[1, tokens] kept_ids)
<int64 pad = {{{pad}}}, int64[1] zero = {{0}}, int64[1] one = {{1}}>
{{
    ids = Cast<to = 7>(text)
    is_padding = Equal(ids, pad)
    is_seen = Not(is_padding)
    is_seen_int = Cast<to = 7>(is_seen)
    last = ArgMax<axis = 1, keepdims = 0, select_last_index = 1>(is_seen_int)
    length = Add(last, one)
    kept_ids = Slice(ids, zero, length, one)
}}
"""
"""In front of a tower that does not see it, as BERT's."""
WHOLE = """
whole (int32[1, {length}] text) => (int64[1, {length}] ids)
{{
    ids = Cast<to = 7>(text)
}}
"""
"""In front of a tower that sees the padding, as SigLIP's does."""


class ImmichManifest(Config, frozen=True, kw_only=True):
    """The content of edgeclip.json in this layout; `fingerprint` is that of the same export in edgeclip's own."""

    schema: int
    edgeclip: str
    layout: Literal["immich"]
    teacher: str
    precision: GraphPrecision
    fingerprint: str
    files: dict[str, FileEntry]
    fusion: Fusion | msgspec.UnsetType = msgspec.UNSET


def export_immich(
    checkpoint: Checkpoint,
    out: Path,
    samples: Samples,
    *,
    precision: Wanted,
    threads: int,
    teacher: Checkpoint | None = None,
) -> tuple[ImmichManifest, Card]:
    """Write a model folder for Immich, whole or not at all. It is made from a bundle in edgeclip's own layout.

    Args:
        checkpoint: the checkpoint.
        out: the folder; an earlier one is replaced.
        samples: as for `export_bundle`.
        precision: as for `export_bundle`.
        threads: as for `export_bundle`.
        teacher: as for `export_bundle`.

    Raises:
        ConfigError: Immich cannot preprocess images as the checkpoint asks.
    """
    preprocess_cfg(checkpoint.preprocess_config, checkpoint.model.config.vision.image_size)  # refused before the work
    with folder_written_atomically(out) as folder:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            bundle = Path(temporary) / "bundle"
            own, card = export_bundle(
                checkpoint, bundle, samples, precision=precision, threads=threads, teacher=teacher
            )
            write_model_folder(read_bundle(bundle), folder)
        manifest = ImmichManifest(
            schema=SCHEMA,
            edgeclip=own.edgeclip,
            layout="immich",
            teacher=own.teacher,
            precision=own.precision,
            fingerprint=own.fingerprint,
            files=entries(folder),
            fusion=own.fusion,
        )
        _write_json(folder / MANIFEST, msgspec.to_builtins(manifest))
    return manifest, card


def write_model_folder(bundle: Bundle, folder: Path) -> None:
    """Write what Immich reads into an empty folder, from a bundle in edgeclip's own layout.

    Raises:
        ConfigError: see `export_immich`.
    """
    _write_json(folder / "config.json", open_clip_config(bundle.config, bundle.tokenizer.clean))
    (folder / "visual").mkdir()
    preprocess = preprocess_cfg(bundle.preprocess, bundle.config.vision.image_size)
    _write_json(folder / "visual" / "preprocess_cfg.json", preprocess)
    _write_visual(bundle, folder / "visual" / "model.onnx")
    (folder / "textual").mkdir()
    bundle.tokenizer.save(folder / "textual")
    _write_textual(bundle, folder / "textual" / "model.onnx")


def preprocess_cfg(config: PreprocessConfig, image_size: int) -> dict[str, Any]:
    """The content of visual/preprocess_cfg.json.

    Raises:
        ConfigError: it is neither "shorter edge to S, middle cut out" nor "squashed to S by S", or does not scale
            pixels to [0, 1] first.
    """
    side = (image_size, image_size)
    if config.resize_to == side and config.crop_size in (None, side):
        resize_mode = "squash"
    elif config.resize_to is None and config.shortest_edge == image_size and config.crop_size == side:
        resize_mode = "shortest"
    else:
        raise ConfigError(
            f"a preprocessing with shortest_edge {config.shortest_edge}, resize_to {config.resize_to} and crop_size "
            f"{config.crop_size} for Immich",
            expected=f"a resize of the shorter edge to {image_size} and a crop to {side}, or a resize to {side}",
            fix="use `layout` edgeclip",
        )
    if abs(config.rescale_factor * 255 - 1) > 1e-6:
        raise ConfigError(
            f"a preprocessing with rescale_factor {config.rescale_factor} for Immich",
            expected="1/255",
            fix="use `layout` edgeclip",
        )
    return {
        "size": list(side),
        "mode": "RGB",
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": Resampling(config.resample).name.lower(),
        "resize_mode": resize_mode,
    }


def open_clip_config(config: ClipConfig, clean: TextCleaning) -> dict[str, Any]:
    """The content of config.json; Immich reads the context length, and whether punctuation is removed."""
    vision, text = config.vision, config.text
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "patch_size": vision.patch_size,
        },
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "tokenizer_kwargs": {"clean": clean if clean in ("whitespace", "canonicalize") else "lower"},
        },
    }


def _write_visual(bundle: Bundle, path: Path) -> None:
    """Image (1, 3, S, S) float32 -> embedding (1, E)."""
    model = prefixed(load_graph(bundle.graph("image")), "tower/")
    rename(model, {"pixel_values": "image", model.graph.output[0].name: "embedding"})
    name_sizes(model, {"batch": 1})
    onnx.save_model(model, path)


def _write_textual(bundle: Bundle, path: Path) -> None:
    """Text (1, L) int32 -> embedding (1, E).

    Immich pads every text to the context length. What the tower does not see is cut off first: it
    cannot change the result but for the activation scale of an int8 graph, and would cost as much time as the text.
    """
    model = prefixed(load_graph(bundle.graph("text")), "tower/")
    name_sizes(model, {"batch": 1})
    rename(model, {model.graph.output[0].name: "embedding"})
    config, tokenizer = bundle.config.text, bundle.tokenizer
    front = CUT_AT_END if config.causal else WHOLE if config.sees_padding else CUT_AT_PADDING
    text = front.format(length=config.context_length, eos=tokenizer.eos_token_id, pad=tokenizer.pad_token_id)
    onnx.save_model(put_in_front(model, text), path)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
