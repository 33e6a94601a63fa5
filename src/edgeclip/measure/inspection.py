"""What is in a checkpoint or a bundle: towers, parameters, bytes, and what quantization did and did not reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeclip.bundle import read_bundle
from edgeclip.config import ClipConfig, Config, OneTowerConfig, PreprocessConfig, TextCleaning
from edgeclip.cpu import int8_arithmetic
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.manifest import Manifest
from edgeclip.measure.source import load_student
from edgeclip.results import Inspection, Part
from edgeclip.runtime.int8_proof import in_words


class BundleInspection(Config, frozen=True, kw_only=True):
    """What `edgeclip inspect` gives of a bundle; `arithmetic` is this machine's, all else the bundle's own.

    `text_cleaning` is what is done to texts before they are tokenized.
    """

    name: str
    manifest: Manifest
    config: ClipConfig | OneTowerConfig
    preprocess: PreprocessConfig | None
    text_cleaning: TextCleaning
    disk_bytes: int
    arithmetic: str


def inspect_bundle(folder: Path) -> BundleInspection:
    """Read a bundle's description, without running it; its kind of int8 is tried on this machine.

    Raises:
        EdgeclipError: it is incomplete, malformed or of a newer version.
    """
    bundle = read_bundle(folder)
    return BundleInspection(
        name=str(folder),
        manifest=bundle.manifest,
        config=bundle.towers,
        preprocess=bundle.image_preprocess,
        text_cleaning="none" if bundle.towers.text is None else bundle.tokenizer.clean,
        disk_bytes=sum(entry.bytes for entry in bundle.manifest.files.values()),
        arithmetic="; ".join([int8_arithmetic(), *([in_words()] if bundle.needs_proof else [])]),
    )


def inspect(source: str, vocabulary: str | None = None, model_config: str | None = None) -> Inspection:
    """Describe a checkpoint, one tower alone, or a student.

    Raises:
        EdgeclipError: it can't be loaded.
    """
    from torch import nn  # PyTorch is only needed here

    from edgeclip.checkpoint.load import load_towers
    from edgeclip.checkpoint.one_tower import OneTower
    from edgeclip.quantize.paper import int8_layers

    path = Path(source)
    found = load_student(path) or load_towers(source, vocabulary=vocabulary, model_config=model_config)
    if isinstance(found, OneTower):
        model: nn.Module = nn.ModuleDict({"text" if found.config.kind == "text" else "vision": found.tower})
        logits: tuple[float | None, float | None] = None, None
    else:
        model, logits = found.model, (found.logit_scale, found.logit_bias)
    layers = int8_layers(model)
    quantized = {name: layer.in_features * layer.out_features for name, layer in layers.items()}
    biases = {f"{name}.bias": layer.bias().numel() for name, layer in layers.items() if layer.bias() is not None}
    floats = {name: parameter.numel() for name, parameter in model.named_parameters()} | biases
    parts = _parts(quantized, floats)
    return Inspection(
        name=source,
        layout=found.layout,
        stored_dtype=found.stored_dtype,
        origins=dict(found.origins),
        config=found.config,
        preprocess=found.preprocess_config,
        logit_scale=logits[0],
        logit_bias=logits[1],
        parts=parts,
        fp32_bytes=4 * sum(part.parameters for part in parts),
        disk_bytes=bytes_on_disk(path) if path.exists() else None,
        int8_layers=sorted(quantized),
        float_tensors=sorted(floats),
    )


_CONVOLUTIONS = tuple(f"vision.{part}" for part in ("stem", "halvings", "positions.", "last", "squeeze"))
_PARTS: dict[str, Callable[[str], bool]] = {
    "image: patch embedding": lambda name: name.startswith("vision.patch_embedding"),
    "image: transformer": lambda name: name.startswith("vision.transformer"),
    "image: stages": lambda name: name.startswith("vision.stages"),
    "image: other convolutions": lambda name: name.startswith(_CONVOLUTIONS),
    "image: attention pooling": lambda name: name.startswith("vision.head"),
    "image: projection": lambda name: name.startswith("vision.projection"),
    "image: norms and positions": lambda name: name.startswith("vision."),
    "text: token embedding": lambda name: name.startswith("text.token_embedding"),
    "text: transformer": lambda name: name.startswith("text.transformer"),
    "text: projection": lambda name: name.startswith("text.projection"),
    "text: norms and positions": lambda name: name.startswith("text."),
    "logit scale": lambda name: True,
}
"""Each tensor belongs to the first part whose test it passes."""


def _parts(quantized: dict[str, int], floats: dict[str, int]) -> list[Part]:
    totals = {part: [0, 0] for part in _PARTS}
    for counts, int8 in ((quantized, True), (floats, False)):
        for name, count in counts.items():
            part = next(part for part, belongs in _PARTS.items() if belongs(name))
            totals[part][0] += count
            totals[part][1] += count if int8 else 0
    return [Part(name=part, parameters=total, int8=int8) for part, (total, int8) in totals.items() if total]
