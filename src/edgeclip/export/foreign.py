"""A bundle from another program's float graphs: int8 as ours is, measured against them; nothing is rewritten."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from edgeclip.checkpoint import open_clip
from edgeclip.config import ClipConfig, PreprocessConfig
from edgeclip.errors import BundleError, ConfigError
from edgeclip.export.export_settings import ExportSettings
from edgeclip.export.foreign_graphs import roles_by_structure, write_own_form
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.make_bundle import write_bundle
from edgeclip.export.samples import load_samples
from edgeclip.graph_model import Kind
from edgeclip.hf_config import config_from
from edgeclip.hf_json import read_json
from edgeclip.manifest import GRAPHS, Card, GraphPrecision, Manifest
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.foreign import ForeignModel, read_foreign
from edgeclip.runtime.foreign_config import FAMILIES
from edgeclip.runtime.foreign_layouts import Layout
from edgeclip.runtime.onnx_file import OnnxFile, read_onnx
from edgeclip.runtime.ports import vocabulary_rows
from edgeclip.tokenizer import ClipTokenizer

KINDS: tuple[Kind, ...] = ("image", "text")


@dataclass(frozen=True)
class ForeignTeacher:
    """Both towers of another program's folder, as a bundle is made of it."""

    model: ForeignModel
    config: ClipConfig

    @property
    def name(self) -> str:
        """What it is called."""
        return self.model.name

    @property
    def preprocess_config(self) -> PreprocessConfig:
        """How images are made."""
        return self.model.preprocess

    @property
    def tokenizer(self) -> ClipTokenizer:
        """How texts are."""
        return self.model.tokenizer

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes logits of them."""
        return self.model.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """What is added to a SigLIP's logits; None for a CLIP."""
        return self.model.logit_bias

    @property
    def lost_words(self) -> None:
        """None: it has all its words."""
        return None

    def write(self, folder: Path, precision: GraphPrecision) -> list[str]:
        """Write both graphs under their names in a bundle; no layer is left in float."""
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            for kind, name in zip(KINDS, GRAPHS[precision], strict=True):
                if precision == "fp32":
                    write_own_form(self.model.towers[kind], kind, folder / name)
                else:
                    write_own_form(self.model.towers[kind], kind, Path(scratch) / "float.onnx")
                    Int8Tower(Path(scratch) / "float.onnx", roles_of=roles_by_structure).write(folder / name)
        return []


def export_foreign(settings: ExportSettings, layout: Layout, out: Path) -> tuple[Manifest, Card]:
    """Write a bundle of the graphs in a folder, whole or not at all.

    Raises:
        EdgeclipError: the graphs are not float32, one is missing, the folder doesn't tell all that a bundle says, or
            anything in the settings or the data can't be used.
    """
    if settings.layout != "edgeclip":
        raise ConfigError(
            f"`layout` {settings.layout} for another program's graphs", expected="edgeclip", fix="leave out `layout`"
        )
    if settings.fuse_tokens is not None:
        raise ConfigError(
            "`fuse_tokens` for another program's graphs", expected="a checkpoint", fix="leave out `fuse_tokens`"
        )
    if settings.keep_words:
        raise ConfigError(
            "`keep_words` for another program's graphs", expected="a checkpoint", fix="leave out `keep_words`"
        )
    folder = Path(settings.model)
    model = read_foreign(folder, layout, logit_scale=settings.logit_scale, logit_bias=settings.logit_bias)
    for kind in KINDS:
        if kind not in model.towers:
            raise model.without(kind)
        if model.towers[kind].precision != "fp32":
            raise BundleError(
                f"{model.towers[kind].graph} in {model.towers[kind].precision}",
                expected="a graph in fp32 to make int8 of",
                fix=f"download it too, or use it as it is: edgeclip.load({str(folder)!r})",
            )
    teacher = ForeignTeacher(model, _config(model))
    _ = model.logit_scale, model.logit_bias  # refused before the work
    return write_bundle(
        teacher,
        teacher.write,
        ClipRuntime(model, threads=settings.threads),
        out,
        load_samples(settings, model.preprocess),
        precision=settings.precision,
        threads=settings.threads,
        combined_graph=settings.combined_graph,
    )


def _config(model: ForeignModel) -> ClipConfig:
    """Both towers' sizes as config.json says them, which the graphs must agree with.

    Raises:
        CheckpointError: it is malformed, or of another architecture.
        BundleError: a graph is of another size.
    """
    path = model.folder / model.layout.image_config
    raw = read_json(path)
    if "model_type" not in raw:
        config = open_clip.describe(raw, path).config
    elif raw["model_type"] in FAMILIES:
        config = config_from(raw, path)
    else:
        config = config_from(_joined(raw, read_json(model.folder / model.layout.text_config)), path)
    said = {
        "projection_dim": config.projection_dim,
        "image_size": config.vision.image_size,
        "hidden_size and patch_size": (config.vision.hidden_size, config.vision.patch_size),
        "vocab_size": config.text.vocab_size,
    }
    for key, value in _measured(model).items():
        if value is not None and said[key] != value:
            raise BundleError(
                f"{path} with {key} {said[key]}", expected=f"{value}, as the graphs have", fix="write it there"
            )
    return replace(config, text=replace(config.text, context_length=model.context_length))


def _joined(vision: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """One configuration of two towers that have their own."""
    size = vision.get("projection_dim")
    family = vision["model_type"].removesuffix("_vision_model")
    return {"model_type": family, "projection_dim": size, "vision_config": vision, "text_config": text}


def _measured(model: ForeignModel) -> dict[str, Any]:
    """Sizes that the graphs themselves have; None where they don't show."""
    image, text = (read_onnx(model.towers[kind].graph) for kind in KINDS)
    return {
        "projection_dim": model.embedding_size,
        "image_size": model.image_size,
        "hidden_size and patch_size": _patches(image),
        "vocab_size": vocabulary_rows(text, model.towers["text"].ports.input),
    }


def _patches(graph: OnnxFile) -> tuple[int, int] | None:
    """(D, P) of the first convolution's weight (D, 3, P, P)."""
    for node in graph.nodes:
        tensor = graph.tensors.get(node.inputs[1]) if node.op == "Conv" and len(node.inputs) > 1 else None
        if tensor is not None and len(tensor.shape) == 4:
            return tensor.shape[0], tensor.shape[3]
    return None
