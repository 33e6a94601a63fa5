"""Hugging Face's preprocessor_config.json, read strictly and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeclip.config import (
    CLIP_MEAN,
    CLIP_STD,
    PreprocessConfig,
    VisionConfig,
)
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import integer, number, read_json, section, shown, triple

_PROCESSORS = ("CLIP", "ChineseCLIP", "Bit", "ViT", "Siglip")
_STEPS = ("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize")
_SIZES = ({"shortest_edge"}, {"height", "width"})


def own_preprocess(vision: VisionConfig) -> PreprocessConfig:
    """CLIP's own preprocessing, or SigLIP's, at the model's size: for want of an image processor's configuration."""
    own = PreprocessConfig.siglip if vision.pooling == "attention" else PreprocessConfig.clip
    return own(vision.image_size)


def read_preprocess(folder: Path, image_size: int) -> PreprocessConfig:
    """Read the image processor's configuration; where there is none, CLIP's own preprocessing at the model's size.

    Raises:
        CheckpointError: it is malformed, or of a processor that does something else.
    """
    found = find_preprocess(folder)
    return PreprocessConfig.clip(image_size) if found is None else preprocess_from(*found, image_size)


def find_preprocess(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """The image processor's configuration: in processor_config.json, where transformers 5 writes it, or alone."""
    both = folder / "processor_config.json"
    if both.is_file() and "image_processor" in (raw := read_json(both)):
        return section(raw, "image_processor", both), both
    alone = folder / "preprocessor_config.json"
    return (read_json(alone), alone) if alone.is_file() else None


def preprocess_from(raw: dict[str, Any], path: Path, image_size: int) -> PreprocessConfig:
    """The preprocessing that an image processor's configuration has; `path` is for errors.

    Raises:
        CheckpointError: it is malformed, or of a processor that does something else.
    """
    kind = raw.get("image_processor_type") or raw.get("feature_extractor_type") or "CLIPImageProcessor"
    own_defaults = not str(kind).startswith(("CLIP", "ChineseCLIP", "Bit"))
    if not str(kind).startswith(_PROCESSORS) or (own_defaults and not {"size", "image_mean", "image_std"} <= set(raw)):
        raise CheckpointError(
            f"{path} of the processor {shown(kind)}",
            expected="CLIP's, or one like it with its size, image_mean and image_std",
            fix="write image_processor_type CLIPImageProcessor if it does the same",
        )
    size, crop = (_without_nulls(raw[key]) if key in raw else image_size for key in ("size", "crop_size"))
    unread = [key for key, value in raw.items() if key.startswith("do_") and value and key not in _STEPS]
    if unread or (isinstance(size, dict) and set(size) not in _SIZES):
        raise CheckpointError(
            f"{path} with {f'{unread[0]} {shown(raw[unread[0]])}' if unread else f'size {shown(size)}'}",
            expected="CLIP's steps alone, and of sizes a shortest_edge or else height and width",
            fix="give a checkpoint such as openai/clip-vit-base-patch32",
        )
    shortest, resize_to = None, None
    if raw.get("do_resize", True):
        # A number is the shorter edge in files from before transformers 4.22.
        if isinstance(size, dict) and "shortest_edge" not in size:
            resize_to = (integer(size, "height", path), integer(size, "width", path))
        else:
            shortest = integer(size if isinstance(size, dict) else {"shortest_edge": size}, "shortest_edge", path)
    crop_size = None
    if raw.get("do_center_crop", not own_defaults):
        sides = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        crop_size = (integer(sides, "height", path), integer(sides, "width", path))
    normalized = raw.get("do_normalize", True)
    return PreprocessConfig(
        shortest_edge=shortest,
        resize_to=resize_to,
        crop_size=crop_size,
        resample=integer(raw, "resample", path, 3),
        rescale_factor=number(raw, "rescale_factor", path, 1 / 255) if raw.get("do_rescale", True) else 1.0,
        mean=triple(raw, "image_mean", path, CLIP_MEAN) if normalized else (0.0, 0.0, 0.0),
        std=triple(raw, "image_std", path, CLIP_STD) if normalized else (1.0, 1.0, 1.0),
    )


def _without_nulls(value: Any) -> Any:
    """A size without the kinds of it that are not meant, which transformers 5 may write too."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def write_preprocess(config: PreprocessConfig) -> dict[str, Any]:
    """The content of preprocessor_config.json."""
    size: dict[str, int] = {}
    if config.resize_to:
        size = {"height": config.resize_to[0], "width": config.resize_to[1]}
    elif config.shortest_edge:
        size = {"shortest_edge": config.shortest_edge}
    crop = {"crop_size": {"height": config.crop_size[0], "width": config.crop_size[1]}} if config.crop_size else {}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": bool(size),
        **({"size": size} if size else {}),
        "resample": config.resample,
        "do_center_crop": bool(crop),
        **crop,
        "do_rescale": True,
        "rescale_factor": config.rescale_factor,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }
