"""open_clip's `preprocess_cfg`: how a model's images are made, in its configurations and in Immich's folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL.Image import Resampling

from edgeclip.config import CLIP_MEAN, CLIP_STD, PreprocessConfig
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import shown, triple

_PREPROCESS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")


def preprocess_from_cfg(raw: dict[str, Any], image_size: int, path: Path) -> PreprocessConfig:
    """The preprocessing that a `preprocess_cfg` has; its size is the image tower's, as in open_clip.

    Raises:
        CheckpointError: a key or value that changes images in a way that is not known.
    """
    odd = {key: value for key, value in raw.items() if key not in _PREPROCESS and value is not None}
    if odd or raw.get("mode", "RGB") != "RGB":
        raise CheckpointError(
            f"{path} with preprocess_cfg {shown(odd or raw['mode'])}",
            expected=f"only {', '.join(_PREPROCESS)}",
            fix="leave it out if it changes nothing",
        )
    mode, interpolation = raw.get("resize_mode", "shortest"), raw.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation not in ("bicubic", "bilinear"):
        raise CheckpointError(
            f"{path} with resize_mode {shown(mode)} and interpolation {shown(interpolation)}",
            expected="shortest or squash, bicubic or bilinear",
            fix="write resize_mode shortest and interpolation bicubic into preprocess_cfg",
        )
    side = (image_size, image_size)
    given = {key: value for key, value in raw.items() if value is not None}
    return PreprocessConfig(
        shortest_edge=image_size if mode == "shortest" else None,
        resize_to=side if mode == "squash" else None,
        crop_size=side,
        resample=Resampling.BICUBIC if interpolation == "bicubic" else Resampling.BILINEAR,
        mean=triple(given, "mean", path, CLIP_MEAN),
        std=triple(given, "std", path, CLIP_STD),
    )
