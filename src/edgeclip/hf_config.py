"""Configuration files in the Hugging Face layout, both ways: config.json and preprocessor_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeclip.config import CLIP_MEAN, CLIP_STD, ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import integer, number, read_json, section

LEGACY_EOS = 2
"""An eos_token_id that configurations before transformers 4.31 carry by mistake; it stands for "the highest id"."""

# Defaults of transformers' CLIPConfig: published configurations leave out what equals them.
_VISION = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
}
_TEXT = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}


def read_config(folder: Path) -> ClipConfig:
    """Read config.json.

    Raises:
        CheckpointError: it is malformed or of another architecture.
    """
    path = folder / "config.json"
    raw = read_json(path)
    if raw.get("model_type") != "clip":
        raise CheckpointError(
            f"{path} of model_type {raw.get('model_type')!r}", expected="'clip'", fix="give a CLIP checkpoint"
        )
    # Some early checkpoints repeat a tower's settings under a second name, which takes precedence in transformers.
    vision, text = (
        section(raw, name, path) | section(raw, f"{name}_dict", path) for name in ("vision_config", "text_config")
    )
    v: dict[str, Any] = {key: integer(vision, key, path, default) for key, default in _VISION.items()}
    t: dict[str, Any] = {key: integer(text, key, path, default) for key, default in _TEXT.items()}
    eos_token_id = t.pop("eos_token_id")
    return ClipConfig(
        projection_dim=integer(raw, "projection_dim", path, 512),
        vision=VisionConfig(**v, **_act_and_eps(vision, path)),
        text=TextConfig(
            context_length=t.pop("max_position_embeddings"),
            eos_token_id=None if eos_token_id == LEGACY_EOS else eos_token_id,
            **t,
            **_act_and_eps(text, path),
        ),
    )


def _act_and_eps(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    return {
        "hidden_act": str(raw.get("hidden_act", "quick_gelu")),
        "layer_norm_eps": number(raw, "layer_norm_eps", path, 1e-5),
    }


def write_config(config: ClipConfig) -> dict[str, Any]:
    """The content of config.json, readable by transformers and transformers.js."""
    vision, text = config.vision, config.text
    common = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "layer_norm_eps",
    )
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.projection_dim,
        "vision_config": {
            "model_type": "clip_vision_model",
            "projection_dim": config.projection_dim,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_channels": vision.num_channels,
            **{key: getattr(vision, key) for key in common},
        },
        "text_config": {
            "model_type": "clip_text_model",
            "projection_dim": config.projection_dim,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "eos_token_id": LEGACY_EOS if text.eos_token_id is None else text.eos_token_id,
            **{key: getattr(text, key) for key in common},
        },
    }


def read_preprocess(folder: Path, image_size: int) -> PreprocessConfig:
    """Read preprocessor_config.json; where there is none, CLIP's own preprocessing at the model's size."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return PreprocessConfig.clip(image_size)
    raw = read_json(path)
    size, crop = raw.get("size", image_size), raw.get("crop_size", image_size)
    shortest, resize_to = None, None
    if raw.get("do_resize", True):
        # A number is the shorter edge in files from before transformers 4.22.
        if isinstance(size, dict) and "shortest_edge" not in size:
            resize_to = (integer(size, "height", path), integer(size, "width", path))
        else:
            shortest = integer(size if isinstance(size, dict) else {"shortest_edge": size}, "shortest_edge", path)
    crop_size = None
    if raw.get("do_center_crop", True):
        sides = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        crop_size = (integer(sides, "height", path), integer(sides, "width", path))
    normalized = raw.get("do_normalize", True)
    return PreprocessConfig(
        shortest_edge=shortest,
        resize_to=resize_to,
        crop_size=crop_size,
        resample=integer(raw, "resample", path, 3),
        rescale_factor=number(raw, "rescale_factor", path, 1 / 255) if raw.get("do_rescale", True) else 1.0,
        mean=_triple(raw, "image_mean", path, CLIP_MEAN) if normalized else (0.0, 0.0, 0.0),
        std=_triple(raw, "image_std", path, CLIP_STD) if normalized else (1.0, 1.0, 1.0),
    )


def _triple(
    raw: dict[str, Any], key: str, path: Path, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    value = raw.get(key, default)
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(isinstance(v, int | float) and abs(v) < 1e9 for v in value)
    ):
        raise CheckpointError(
            f"{path} with {key} {value!r}", expected="three numbers", fix=f"write {key} as [0.5, 0.5, 0.5] or the like"
        )
    return (float(value[0]), float(value[1]), float(value[2]))


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
