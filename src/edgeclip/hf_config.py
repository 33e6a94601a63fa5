"""Configuration files in the Hugging Face layout, both ways: config.json and preprocessor_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeclip.config import CLIP_MEAN, CLIP_STD, ClipConfig, Fusion, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.errors import MALFORMED, CheckpointError
from edgeclip.hf_json import integer, number, read_json, section, shown, triple

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
_REFUSED = {
    "quantization_config": "that is not quantized",
    "auto_map": "that needs no code of its own",
    "pruned_heads": "with all of its heads",
}
FUSION_KEY = "token_fusion"
"""The key of our own in vision_config, where an image tower fuses tokens; others pass over it, and fuse none."""
_PROCESSORS = ("CLIP", "ChineseCLIP", "Bit", "ViT", "Siglip")
_STEPS = ("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize")
_SIZES = ({"shortest_edge"}, {"height", "width"})
_SAME_ACTIVATION = {
    **{"gelu_python": "gelu", "swish": "silu"},
    **dict.fromkeys(("gelu_fast", "gelu_accurate", "gelu_python_tanh"), "gelu_pytorch_tanh"),
}
"""Other names of transformers for the same function."""


def read_config(folder: Path) -> ClipConfig:
    """Read config.json.

    Raises:
        CheckpointError: it is malformed or of another architecture.
    """
    path = folder / "config.json"
    return config_from(read_json(path), path)


def config_from(raw: dict[str, Any], path: Path) -> ClipConfig:
    """The configuration that config.json has; `path` is for errors.

    Keys that are not read are not read by transformers' CLIP either, but for those in `_REFUSED`.

    Raises:
        CheckpointError: it is malformed or of another architecture.
    """
    if raw.get("model_type") != "clip":
        raise CheckpointError(
            f"{path} of model_type {shown(raw.get('model_type'))}", expected="'clip'", fix="give a CLIP checkpoint"
        )
    vision, text = (_tower(raw, name, path) for name in ("vision_config", "text_config"))
    for part in (raw, vision, text):
        for key, reason in _REFUSED.items():
            if part.get(key):
                raise CheckpointError(
                    f"{path} with {key} {shown(part[key])}", expected="a plain CLIP", fix=f"give one {reason}"
                )
    if text.get(FUSION_KEY) is not None:
        raise CheckpointError(
            f"{path} with {FUSION_KEY} in its text_config",
            expected="it in vision_config alone",
            fix="remove it there",
        )
    v: dict[str, Any] = {key: integer(vision, key, path, default) for key, default in _VISION.items()}
    t: dict[str, Any] = {key: integer(text, key, path, default) for key, default in _TEXT.items()}
    eos_token_id = t.pop("eos_token_id")
    return ClipConfig(
        projection_dim=integer(raw, "projection_dim", path, 512),
        vision=VisionConfig(**v, **_act_and_eps(vision, path), fusion=_fusion(vision, path)),
        text=TextConfig(
            context_length=t.pop("max_position_embeddings"),
            eos_token_id=None if eos_token_id == LEGACY_EOS else eos_token_id,
            **t,
            **_act_and_eps(text, path),
        ),
    )


def _tower(raw: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A tower's settings. Where early checkpoints repeat them as `..._dict`, transformers takes those alone."""
    return section(raw, f"{name}_dict" if raw.get(f"{name}_dict") is not None else name, path)


def _act_and_eps(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    return {
        "hidden_act": _SAME_ACTIVATION.get(act := str(raw.get("hidden_act", "quick_gelu")), act),
        "layer_norm_eps": number(raw, "layer_norm_eps", path, 1e-5),
    }


def _fusion(vision: dict[str, Any], path: Path) -> Fusion | None:
    try:
        return msgspec.convert(vision.get(FUSION_KEY), Fusion | None)
    except MALFORMED as error:
        raise CheckpointError(
            f"{path} with {FUSION_KEY} {shown(vision[FUSION_KEY])} ({error})",
            expected="what `fuse_tokens` has written",
            fix="export it again",
        ) from error


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
            **({} if vision.fusion is None else {FUSION_KEY: msgspec.to_builtins(vision.fusion)}),
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
