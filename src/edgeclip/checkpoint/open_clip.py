"""open_clip's layout: open_clip_config.json beside weights under OpenAI's names, for ViT towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL.Image import Resampling

from edgeclip.config import CLIP_MEAN, CLIP_STD, ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import integer, number, read_json, section

CONFIG_NAME = "open_clip_config.json"
IGNORED = ("attn_mask", "text.attn_mask")
"""Buffers of constants that some files carry."""

# What is understood. Anything else would change the function and is refused, unless it is off.
_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}
_VISION = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "norm_kwargs", "pool_type"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs", "pool_type"}
_TEXT |= {"hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "eos_id", "pad_id"}
_HARMLESS = {"patch_dropout": 0.0, "output_tokens": False, "embed_cls": False, "no_ln_pre": False, "proj_bias": False}


def read_config(folder: Path) -> tuple[ClipConfig, PreprocessConfig, str]:
    """Read open_clip_config.json.

    Returns:
        The model's configuration, its preprocessing, and the prefix of the text tower's tensor names.

    Raises:
        CheckpointError: it is malformed or describes a tower that is not a plain ViT or text transformer.
    """
    path = folder / CONFIG_NAME
    raw = read_json(path)
    model = section(raw, "model_cfg", path)
    vision, text = section(model, "vision_cfg", path), section(model, "text_cfg", path)
    for part, known in ((model, _MODEL), (vision, _VISION), (text, _TEXT)):
        _refuse_unknown(part, known, path)
    if vision.get("pool_type", "tok") != "tok" or text.get("pool_type", "argmax") not in ("argmax", "eos"):
        raise CheckpointError(
            f"{path} with pool_type {vision.get('pool_type')!r} and {text.get('pool_type')!r}",
            expected="the class token and the end-of-text token to be pooled",
            fix="give a checkpoint such as openai/clip-vit-base-patch32",
        )
    act = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    width, text_width = integer(vision, "width", path, 768), integer(text, "width", path, 512)
    config = ClipConfig(
        projection_dim=integer(model, "embed_dim", path),
        vision=VisionConfig(
            image_size=integer(vision, "image_size", path, 224),
            patch_size=integer(vision, "patch_size", path, 16),
            hidden_size=width,
            num_hidden_layers=integer(vision, "layers", path, 12),
            num_attention_heads=width // max(integer(vision, "head_width", path, 64), 1),
            **_mlp_act_eps(vision, width, act, path),
        ),
        text=TextConfig(
            vocab_size=integer(text, "vocab_size", path, 49408),
            context_length=integer(text, "context_length", path, 77),
            eos_token_id=integer(text, "eos_id", path, 2) if text.get("pool_type") == "eos" else None,
            hidden_size=text_width,
            num_hidden_layers=integer(text, "layers", path, 12),
            num_attention_heads=integer(text, "heads", path, 8),
            **_mlp_act_eps(text, text_width, act, path),
        ),
    )
    prefix = "text." if model.get("custom_text", False) else ""
    return config, _preprocess(section(raw, "preprocess_cfg", path), config.vision.image_size, path), prefix


def _refuse_unknown(part: dict[str, Any], known: set[str], path: Path) -> None:
    unknown = [k for k, v in part.items() if k not in known and v is not None and v != _HARMLESS.get(k, object())]
    if unknown:
        raise CheckpointError(
            f"{path} with {', '.join(f'{key} = {part[key]!r}' for key in sorted(unknown))}",
            expected="a plain ViT image tower and CLIP text tower",
            fix="give a checkpoint such as openai/clip-vit-base-patch32",
        )


def _mlp_act_eps(tower: dict[str, Any], width: int, act: str, path: Path) -> dict[str, Any]:
    return {
        "intermediate_size": int(width * number(tower, "mlp_ratio", path, 4.0)),
        "hidden_act": act,
        "layer_norm_eps": number(section(tower, "norm_kwargs", path), "eps", path, 1e-5),
    }


def _preprocess(raw: dict[str, Any], image_size: int, path: Path) -> PreprocessConfig:
    mean, std = raw.get("mean") or CLIP_MEAN, raw.get("std") or CLIP_STD
    mode, interpolation = raw.get("resize_mode", "shortest"), raw.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation not in ("bicubic", "bilinear"):
        raise CheckpointError(
            f"{path} with resize_mode {mode!r} and interpolation {interpolation!r}",
            expected="shortest or squash, bicubic or bilinear",
            fix="write resize_mode shortest and interpolation bicubic into preprocess_cfg",
        )
    numbers = all(isinstance(v, list | tuple) and len(v) == 3 for v in (mean, std))
    if not numbers or not all(isinstance(v, int | float) for v in (*mean, *std)):
        raise CheckpointError(
            f"{path} with mean {mean} and std {std}",
            expected="three numbers each",
            fix="write three numbers each into preprocess_cfg",
        )
    side = (image_size, image_size)
    return PreprocessConfig(
        shortest_edge=image_size if mode == "shortest" else None,
        resize_to=side if mode == "squash" else None,
        crop_size=side,
        resample=Resampling.BICUBIC if interpolation == "bicubic" else Resampling.BILINEAR,
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
    )
