"""Configuration files in the Hugging Face layout, both ways: config.json and preprocessor_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgeclip import hf_bert
from edgeclip.config import (
    ClipConfig,
    Fusion,
    OneTowerConfig,
    TextConfig,
    TowerConfig,
    VisionConfig,
)
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import integer, number, own, read_json, section, shown

CHINESE_CLIP, DUAL_ENCODER = "chinese_clip", "vision-text-dual-encoder"
LEGACY_EOS = 2
"""An eos_token_id that CLIP's configurations before transformers 4.31 carry by mistake, for "the highest id".

MetaCLIP 2 has it in earnest, which is all that its configuration has of its own.
"""
OWN, OWN_CONFIG = "edgeclip", "clip_config"
"""The model_type of a model that transformers has not, and the key of its configuration, which is our own whole."""
IMAGE_OUTPUTS = {**dict.fromkeys(("class", "patches", "places"), "image_embeds"), "attention": "pooler_output"}
TEXT_OUTPUTS = {"end": "text_embeds", "last": "pooler_output", "first": "text_embeds", "mean": "text_embeds"}
"""What transformers.js calls the embeddings, by the tower's pooling."""

# Defaults of transformers' configurations: published ones leave out what equals them.
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


class _Family(NamedTuple):
    """What a `model_type` stands for where its configuration is silent."""

    vision: dict[str, int]
    text: dict[str, int]
    hidden_act: str
    layer_norm_eps: float
    is_siglip: bool = False
    is_bert: bool = False


_SIGLIP = _Family(
    {**_VISION, "patch_size": 16},
    {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 32000,
        "max_position_embeddings": 64,
    },
    "gelu_pytorch_tanh",
    1e-6,
    is_siglip=True,
)
_FAMILIES = {
    "clip": _Family(_VISION, _TEXT, "quick_gelu", 1e-5),
    "metaclip_2": _Family(_VISION, _TEXT, "quick_gelu", 1e-5),
    "siglip": _SIGLIP,
    "siglip2": _SIGLIP,
    CHINESE_CLIP: _Family(_VISION, {}, "quick_gelu", 1e-5, is_bert=True),
    DUAL_ENCODER: _Family(_VISION, {}, "quick_gelu", 1e-5, is_bert=True),
}
MODEL_TYPES = (*_FAMILIES, OWN)
"""The architectures that are read, by transformers' names."""
TOWER_TYPES = tuple(
    f"{family}_{tower}_model" for family in ("clip", "metaclip_2", "siglip", "siglip2") for tower in ("vision", "text")
)
"""Those of one tower alone: CLIPs with their projection, SigLIPs, which have none, as they are."""
_MISSING = {
    "align": "an EfficientNet image tower",
    "altclip": "an XLM-RoBERTa text tower with a normalisation of its own",
    "blip": "a BERT text tower that looks at the image",
    "flava": "a multimodal tower",
    "jina_clip": "an EVA image tower",
    "owlvit": "a box for each patch",
    "owlv2": "a box for each patch",
}
"""The part that edgeclip has not, of architectures that people ask for."""
_REFUSED = {
    "quantization_config": "that is not quantized",
    "auto_map": "that needs no code of its own",
    "pruned_heads": "with all of its heads",
}
FUSION_KEY = "token_fusion"
"""The key of our own in vision_config, where an image tower fuses tokens; others pass over it, and fuse none."""
_SAME_ACTIVATION = {
    **{"gelu_python": "gelu", "swish": "silu"},
    **dict.fromkeys(("gelu_fast", "gelu_accurate", "gelu_python_tanh"), "gelu_pytorch_tanh"),
}
"""Other names of transformers for the same function."""
SIGMOID = "sigmoid"
"""Our own key of a CLIP that was trained with SigLIP's loss; SigLIP's configuration needs none."""


def read_config(folder: Path) -> ClipConfig:
    """Read config.json.

    Raises:
        CheckpointError: it is malformed or of another architecture.
    """
    path = folder / "config.json"
    return config_from(read_json(path), path)


def read_towers(folder: Path) -> ClipConfig | OneTowerConfig:
    """Read the config.json of both towers or of one.

    Raises:
        CheckpointError: it is malformed or of another architecture.
    """
    path = folder / "config.json"
    raw = read_json(path)
    return tower_from(raw, path) if is_one_tower(raw) else config_from(raw, path)


def config_from(raw: dict[str, Any], path: Path) -> ClipConfig:
    """The configuration that config.json has; `path` is for errors.

    Keys that are not read are not read by transformers either, but for those in `_REFUSED`.

    Raises:
        CheckpointError: it is malformed or of another architecture.
    """
    model_type = raw.get("model_type")
    if model_type == OWN:
        return own(raw, OWN_CONFIG, path, ClipConfig)
    family = _FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise CheckpointError(
            f"{path} of model_type {shown(model_type)}{_told(model_type)}",
            expected=" or ".join(map(repr, MODEL_TYPES)),
            fix="give a CLIP, SigLIP or MetaCLIP 2 checkpoint",
        )
    tower = section if family.is_siglip else _tower
    vision, text = (tower(raw, name, path) for name in ("vision_config", "text_config"))
    _refuse_parts(raw, vision, text, path)
    v: dict[str, Any] = {key: integer(vision, key, path, default) for key, default in family.vision.items()}
    v |= _act_and_eps(vision, family, path)
    v["fusion"] = None if vision.get(FUSION_KEY) is None else own(vision, FUSION_KEY, path, Fusion)
    if family.is_siglip:
        _refuse_other_siglips(model_type, vision, path)
        read = TextConfig(**_text_sizes(text, family, path), pooling="last", projection_bias=True)
        return ClipConfig(
            projection_dim=integer(text, "projection_size", path, read.hidden_size),
            vision=VisionConfig(**v, pooling="attention"),
            text=read,
            sigmoid=True,
        )
    bert = _bert(model_type, vision, text, path) if family.is_bert else None
    return ClipConfig(
        projection_dim=integer(raw, "projection_dim", path, 512),
        vision=VisionConfig(**v),
        text=bert or _clip_text(model_type, text, family, path),
        sigmoid=raw.get(SIGMOID) is True,
    )


def _refuse_parts(raw: dict[str, Any], vision: dict[str, Any], text: dict[str, Any], path: Path) -> None:
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


def _text_sizes(text: dict[str, Any], family: _Family, path: Path) -> dict[str, Any]:
    """The arguments of a `TextConfig` that CLIP and SigLIP have in common; SigLIP looks for no end of text."""
    t: dict[str, Any] = {key: integer(text, key, path, default) for key, default in family.text.items()}
    t["context_length"] = t.pop("max_position_embeddings")
    return {"eos_token_id": None, **t, **_act_and_eps(text, family, path)}


def _clip_text(model_type: object, text: dict[str, Any], family: _Family, path: Path) -> TextConfig:
    t = _text_sizes(text, family, path)
    if model_type == "clip" and t["eos_token_id"] == LEGACY_EOS:
        t["eos_token_id"] = None
    return TextConfig(**t)


def is_one_tower(raw: dict[str, Any]) -> bool:
    """Whether a configuration is of one tower alone, with its projection."""
    return raw.get("model_type") in TOWER_TYPES or hf_bert.HEAD_KEY in raw


def tower_from(raw: dict[str, Any], path: Path) -> OneTowerConfig:
    """The tower that a configuration has which `is_one_tower`.

    Raises:
        CheckpointError: it is malformed.
    """
    family, _, tower = str(raw["model_type"]).removesuffix("_model").rpartition("_")
    if hf_bert.HEAD_KEY in raw:
        family, tower = DUAL_ENCODER, "text"
    beside: dict[str, Any] = {"vision_config": {"model_type": "clip_vision_model"}}  # of the usual sizes
    if family.startswith("siglip"):  # whose image tower is as wide as the embeddings
        width = raw.get("projection_size", raw.get("hidden_size", _SIGLIP.text["hidden_size"]))
        square = {"hidden_size": width, "num_attention_heads": 1, "image_size": _VISION["image_size"]}
        beside = {"vision_config": square, "text_config": {"projection_size": width}}
    whole = {"model_type": family, "projection_dim": raw.get("projection_dim", 512), **beside, f"{tower}_config": raw}
    config = config_from(whole, path)
    if tower == "vision":
        return OneTowerConfig(projection_dim=config.projection_dim, vision=config.vision)
    return OneTowerConfig(projection_dim=config.projection_dim, text=config.text)


def write_tower(config: OneTowerConfig) -> dict[str, Any]:
    """The content of config.json of one tower alone, as `tower_from` reads it."""
    other: dict[str, Any] = {"model_type": "clip"}
    if config.is_siglips:
        square = {"hidden_size": config.projection_dim, "num_attention_heads": 1}
        text = {"projection_size": config.projection_dim}
        other = {"model_type": "siglip", "vision_config": square, "text_config": text}
    usual = config_from(other, Path("config.json"))
    whole = write_config(
        ClipConfig(
            projection_dim=config.projection_dim,
            vision=config.vision or usual.vision,
            text=config.text or usual.text,
        )
    )
    head: dict[str, Any] = {"projection_dim": config.projection_dim}
    if config.text is not None and config.text.bert is not None:
        head[hf_bert.HEAD_KEY] = msgspec.to_builtins(hf_bert.head_of(config.text))
    return {**whole["vision_config" if config.kind == "image" else "text_config"], **head}


def _bert(model_type: object, vision: dict[str, Any], text: dict[str, Any], path: Path) -> TextConfig:
    """The text tower beside a ViT of CLIP's."""
    if model_type == CHINESE_CLIP:
        return hf_bert.text_config({**text, "model_type": "chinese_clip_text_model"}, path, hf_bert.CHINESE)
    if vision.get("model_type") != "clip_vision_model":
        raise CheckpointError(
            f"{path} with the image tower {shown(vision.get('model_type'))}",
            expected="'clip_vision_model', a ViT of CLIP's",
            fix="give a checkpoint that was made with one, such as openai/clip-vit-base-patch32",
        )
    return hf_bert.text_config(text, path, hf_bert.read_head(text, path))


def _told(model_type: object) -> str:
    """What is missing of an architecture that is not read, where that is known."""
    if str(model_type).endswith(("_vision_model", "_text_model")):
        return ", one tower alone"
    part = _MISSING.get(str(model_type))
    return "" if part is None else f", with {part}"


def _refuse_other_siglips(model_type: object, vision: dict[str, Any], path: Path) -> None:
    """Refuse SigLIP's towers that give no embedding of a square image."""
    fix = "give one of a fixed resolution, such as google/siglip2-base-patch16-224"
    if model_type == "siglip2" and "image_size" not in vision:
        raise CheckpointError(
            f"{path}, a NaFlex checkpoint, which takes images of any shape", expected="an image_size", fix=fix
        )
    if not vision.get("vision_use_head", True):
        raise CheckpointError(
            f"{path} with vision_use_head false", expected="an image tower with its attention pooling", fix=fix
        )


def _tower(raw: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A tower's settings. Where early checkpoints repeat them as `..._dict`, transformers takes those alone."""
    return section(raw, f"{name}_dict" if raw.get(f"{name}_dict") is not None else name, path)


def _act_and_eps(raw: dict[str, Any], family: _Family, path: Path) -> dict[str, Any]:
    return {
        "hidden_act": _SAME_ACTIVATION.get(act := str(raw.get("hidden_act", family.hidden_act)), act),
        "layer_norm_eps": number(raw, "layer_norm_eps", path, family.layer_norm_eps),
    }


def is_own(config: ClipConfig) -> bool:
    """Whether transformers has no class for a model, but for one that fuses tokens, which others take for a CLIP."""
    vision, text = config.vision, config.text
    is_siglip = vision.pools_by_attention and _has(text, pooling="last", projection_bias=True)
    is_vit = _has(vision, pooling="class", pre_norm=True, projection_bias=False, stem=None)
    return not is_siglip and not (is_vit and (text.bert is not None or _has(text, pooling="end", sees_all=False)))


def _has(tower: TowerConfig, **settings: object) -> bool:
    return all(getattr(tower, name) == value for name, value in settings.items())


def write_config(config: ClipConfig) -> dict[str, Any]:
    """The content of config.json, readable by transformers and transformers.js."""
    if is_own(config):
        return {"architectures": ["Edgeclip"], "model_type": OWN, OWN_CONFIG: msgspec.to_builtins(config)}
    vision_sizes = _sizes(config.vision, "image_size", "patch_size", "num_channels")
    if config.vision.pooling == "attention":
        text = {"projection_size": config.projection_dim, **_text_sizes_of(config.text)}
        return {
            "architectures": ["SiglipModel"],
            "model_type": "siglip",
            "vision_config": {"model_type": "siglip_vision_model", **vision_sizes},
            "text_config": {"model_type": "siglip_text_model", **text},
        }
    named = _named_as_clip(config) if config.text.bert is None else _named_as_bert(config.text)
    fusion = config.vision.fusion
    return {
        "architectures": [named.architecture],
        "model_type": named.model_type,
        "projection_dim": config.projection_dim,
        **({SIGMOID: True} if config.sigmoid else {}),
        "vision_config": {
            "model_type": named.vision_type,
            "projection_dim": config.projection_dim,
            **vision_sizes,
            **({} if fusion is None else {FUSION_KEY: msgspec.to_builtins(fusion)}),
        },
        "text_config": named.text_config,
    }


class _Named(NamedTuple):
    """What transformers calls a model of a ViT of CLIP's, and the configuration of its text tower."""

    architecture: str
    model_type: str
    vision_type: str
    text_config: dict[str, Any]


def _named_as_clip(config: ClipConfig) -> _Named:
    """MetaCLIP 2 where the end of text says so."""
    eos = config.text.eos_token_id
    name, class_name = ("metaclip_2", "MetaClip2") if eos == LEGACY_EOS else ("clip", "CLIP")
    text = {
        "model_type": f"{name}_text_model",
        "projection_dim": config.projection_dim,
        "eos_token_id": LEGACY_EOS if eos is None else eos,
        **_text_sizes_of(config.text),
    }
    return _Named(f"{class_name}Model", name, f"{name}_vision_model", text)


def _named_as_bert(text: TextConfig) -> _Named:
    """Chinese CLIP where all that it says of its text tower holds."""
    chinese = hf_bert.head_of(text) == hf_bert.CHINESE and not (text.bert and text.bert.skips_padding)
    written = hf_bert.text_config_of(text, chinese=chinese)
    if chinese:
        return _Named("ChineseCLIPModel", CHINESE_CLIP, "chinese_clip_vision_model", written)
    return _Named("VisionTextDualEncoderModel", DUAL_ENCODER, "clip_vision_model", written)


def _text_sizes_of(text: TextConfig) -> dict[str, Any]:
    return {**_sizes(text, "vocab_size"), "max_position_embeddings": text.context_length}


def _sizes(tower: TowerConfig, *own: str) -> dict[str, Any]:
    """The keys that both towers have, and those of its own."""
    of_blocks = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {key: getattr(tower, key) for key in (*of_blocks, "hidden_act", "layer_norm_eps", *own)}
