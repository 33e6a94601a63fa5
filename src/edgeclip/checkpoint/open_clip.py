"""open_clip's configuration: open_clip_config.json and its `model_cfg` alone, for ViT towers under OpenAI's names.

A key is read, or its value is known to change nothing, or it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from edgeclip import hf_bert
from edgeclip.checkpoint.description import Description
from edgeclip.checkpoint.fastvit import fastvit_preprocess, fastvit_tower
from edgeclip.checkpoint.timm import clip_tower, siglip_tower
from edgeclip.config import (
    ClipConfig,
    PreprocessConfig,
    TextCleaning,
    TextConfig,
    VisionConfig,
)
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import integer, number, section, shown
from edgeclip.preprocess_cfg import preprocess_from_cfg

_POOLERS = {
    "mean_pooler": hf_bert.Head(pooling="mean"),
    "cls_pooler": hf_bert.Head(pooling="first", pooler=True),
    "cls_last_hidden_state_pooler": hf_bert.Head(pooling="first"),
}
"""What follows the blocks, by open_clip's name for it."""
CONFIG_NAME = "open_clip_config.json"
SIMPLE_PAD = 0
"""What open_clip's SimpleTokenizer puts after a text, whatever tokenizer.json beside the weights says."""

_READ = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias", "nonscalar_logit_scale"},
    "vision_cfg": {
        "image_size",
        "layers",
        "width",
        "head_width",
        "patch_size",
        "mlp_ratio",
        "norm_kwargs",
        "act_kwargs",
        "timm_model_name",
        "no_ln_pre",
        "pool_type",
        "final_ln_after_pool",
        "ls_init_value",
    },
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs"}
    | {"pool_type", "eos_id", "tokenizer_kwargs", "hf_tokenizer_name", "tokenizer_mode"}
    | {"no_causal_mask", "proj_bias", "proj_type", "ls_init_value"}
    | {"hf_model_name", "hf_proj_type", "hf_pooler_type"},
}
# Whatever their value, these change nothing: starting values, training alone, the form of the output, or details of a
# part that is switched off (`_DEFAULTS` refuses one that is on). The text tower's prefix is read from the tensors.
_WITHOUT_EFFECT = {
    "model_cfg": {"init_logit_scale", "custom_text", "output_dict", "cast_dtype"},
    "vision_cfg": {"patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads"}
    | {"timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"},
    "text_cfg": {"pad_id", "output_tokens", "hf_model_pretrained"},
}
_BLOCK: dict[str, Any] = {
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
# open_clip's own defaults: the plain towers.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "model_cfg": {"multimodal_cfg": None},
    "vision_cfg": _BLOCK
    | {"attentional_pool": False, "in_chans": 3}
    | {"pos_embed_type": "learnable", "global_average_pool": False, "input_patchnorm": False},
    "text_cfg": _BLOCK | {"embed_cls": False, "final_ln_after_pool": False, "correct_cls_mask": False},
}
_OTHER_IMAGE_TOWERS = {
    "convnext": "ConvNeXt's convolutions",
    "eva02": "EVA02's rotary positions",
    "swin": "Swin's windows",
    "vit_medium_patch16_gap": "the mean of patches in place of a class token",
    "vit_pe_core": "Perception Encoder's rotary positions",
    "vit_relpos": "relative positions",
    "vitamin": "ViTamin's convolutions",
}
_OTHER_TEXT_TOWERS = {
    "google/mt5": "mT5's relative positions",
    "facebook/nllb": "NLLB's encoder of M2M-100",
}
"""What there is no tower for, by the beginning of a name."""
_TIMM_ENDS = {"attention": ("map", "none"), "places": ("avg", None), "class": ("token", None)}
"""How timm's towers pool, and whether what projects the pooled is their own classifier."""


def describe(raw: dict[str, Any], path: Path) -> Description:
    """What open_clip_config.json, or the `model_cfg` in it alone, says of a model.

    Raises:
        CheckpointError: it is malformed or describes a tower that is not a plain ViT or text transformer.
    """
    model = section(raw, "model_cfg", path) if "model_cfg" in raw else raw
    vision, text = section(model, "vision_cfg", path), section(model, "text_cfg", path)
    _refuse_other_kinds(model, vision, text, path)
    for name, part in (("model_cfg", model), ("vision_cfg", vision), ("text_cfg", text)):
        _refuse_unknown(name, part, path)
    quick, embed_dim = model.get("quick_gelu", False), integer(model, "embed_dim", path)
    is_bert = text.get("hf_model_name") is not None
    config = ClipConfig(
        projection_dim=embed_dim,
        vision=_vision(vision, quick, path),
        sigmoid=model.get("init_logit_bias") is not None,
        text=_bert(text, embed_dim, path) if is_bert else _text(text, quick, path),
    )
    clean, ends_in_padding, no_text = _text_cleaning(text, path)
    return Description(
        config,
        path.name,
        *_preprocess(raw, config.vision, path),
        clean=clean,
        ends_in_padding=ends_in_padding,
        pad_token_id=SIMPLE_PAD if config.text.sees_all else None,
        projects_text=_projects_text(text, config, path),
        scaled=frozenset(
            name for name, part in (("vision", vision), ("text", text)) if part.get("ls_init_value") is not None
        ),
        no_text=no_text,
    )


def _projects_text(text: dict[str, Any], config: ClipConfig, path: Path) -> bool:
    """Whether there is a projection of texts."""
    kind, width = text.get("proj_type", "linear"), config.text.hidden_size
    if kind not in ("linear", "none") or (kind == "none" and width != config.projection_dim):
        raise _other(path, f"proj_type = {shown(kind)} of a text tower {width} wide")
    return kind == "linear"


def _preprocess(raw: dict[str, Any], vision: VisionConfig, path: Path) -> tuple[PreprocessConfig | None, str]:
    """How images are prepared and where that was read: in the file, or of a family that has one way in open_clip."""
    if "preprocess_cfg" in raw:
        return preprocess_from_cfg(section(raw, "preprocess_cfg", path), vision.image_size, path), path.name
    if vision.convolutions is None and vision.stem is None:
        return None, ""
    own = fastvit_preprocess(vision) if vision.stem is None else PreprocessConfig.mobileclip(vision.image_size)
    return own, "open_clip's own for MobileCLIP, for want of any"


def _vision(vision: dict[str, Any], quick: object, path: Path) -> VisionConfig:
    image_size = integer(vision, "image_size", path, 224)
    if (name := vision.get("timm_model_name")) and (tower := _timm_tower(str(name), image_size)):
        return tower
    width = integer(vision, "width", path, 768)
    return VisionConfig(
        image_size=image_size,
        patch_size=integer(vision, "patch_size", path, 16),
        hidden_size=width,
        num_hidden_layers=integer(vision, "layers", path, 12),
        num_attention_heads=width // max(integer(vision, "head_width", path, 64), 1),
        pre_norm=not _is_set(vision, "no_ln_pre", path),
        **_image_pooling(vision, path),
        **_mlp_act_eps(vision, width, quick, path),
    )


def _is_set(part: dict[str, Any], key: str, path: Path) -> bool:
    if (value := part.get(key) or False) not in (False, True):
        raise _other(path, f"{key} = {shown(value)}")
    return bool(value)


def _image_pooling(vision: dict[str, Any], path: Path) -> dict[str, Any]:
    """A class token, or the mean of the others, as CLIPA has it."""
    kind = {"pool_type": "tok", "final_ln_after_pool": False}
    kind |= {key: vision[key] for key in kind if vision.get(key) is not None}
    known = {("tok", False): "class", ("avg", True): "patches"}
    if (pooling := known.get((str(kind["pool_type"]), bool(kind["final_ln_after_pool"])))) is None:
        raise _other(path, f"{', '.join(f'{key} = {shown(value)}' for key, value in kind.items())} in its image tower")
    return {"pooling": pooling}


def _timm_tower(name: str, image_size: int) -> VisionConfig | None:
    """One of timm's image towers, if it is known."""
    return siglip_tower(name, image_size) or fastvit_tower(name, image_size) or clip_tower(name, image_size)


def _text(text: dict[str, Any], quick: object, path: Path) -> TextConfig:
    width = integer(text, "width", path, 512)
    return TextConfig(
        vocab_size=integer(text, "vocab_size", path, 49408),
        context_length=integer(text, "context_length", path, 77),
        eos_token_id=integer(text, "eos_id", path, 2) if text.get("pool_type") == "eos" else None,
        hidden_size=width,
        num_hidden_layers=integer(text, "layers", path, 12),
        num_attention_heads=integer(text, "heads", path, 8),
        **_text_pooling(text, path),
        **_mlp_act_eps(text, width, quick, path),
    )


def _bert(text: dict[str, Any], embed_dim: int, path: Path) -> TextConfig:
    """A tower of transformers', whose sizes its name tells: `HFTextEncoder` of open_clip's hf_model.py."""
    pooler, proj = text.get("hf_pooler_type", "mean_pooler"), text.get("hf_proj_type", "mlp")
    if pooler not in _POOLERS or proj not in ("linear", "mlp"):
        raise _other(path, f"hf_pooler_type {shown(pooler)} and hf_proj_type {shown(proj)} in its text tower")
    published = hf_bert.published(str(text["hf_model_name"]), _POOLERS[pooler], path)
    units = (published.hidden_size + embed_dim) // 2 if proj == "mlp" else None
    length = min(integer(text, "context_length", path, 77), published.context_length)
    assert published.bert is not None  # noqa: S101 - it is of BERT's kind
    return replace(published, context_length=length, bert=replace(published.bert, projection_units=units))


def _text_pooling(text: dict[str, Any], path: Path) -> dict[str, Any]:
    """That of SigLIP's text tower, or of CLIP's, whose tokens may see each other all."""
    kind = {"pool_type": "argmax", "no_causal_mask": False, "proj_bias": False}
    kind |= {key: text[key] for key in kind if text.get(key) is not None}
    is_last = kind["pool_type"] == "last"
    known = {
        "pool_type": ("argmax", "eos", "last"),
        "no_causal_mask": (True,) if is_last else (False, True),
        "proj_bias": (False, True) if is_last else (False,),
    }
    if odd := [f"{key} = {shown(kind[key])}" for key, values in known.items() if kind[key] not in values]:
        raise _other(path, f"{', '.join(odd)} in its text tower")
    if is_last:
        return {"pooling": "last", "projection_bias": kind["proj_bias"]}
    return {"pooling": "end", "sees_all": kind["no_causal_mask"]}


def _refuse_other_kinds(model: dict[str, Any], vision: dict[str, Any], text: dict[str, Any], path: Path) -> None:
    """Say what a model is, before its keys are looked at one by one."""
    if isinstance(vision.get("layers"), list):
        raise _other(path, "a ResNet image tower")
    if name := vision.get("timm_model_name"):
        if (tower := _timm_tower(str(name), 224)) is None:
            raise _other(path, f"timm's {shown(name)} as its image tower{_told(str(name), _OTHER_IMAGE_TOWERS)}")
        ends = {key: vision.get(key) for key in ("timm_pool", "timm_proj")}
        if tuple(ends.values()) != _TIMM_ENDS[tower.pooling]:
            raise _other(path, ", ".join(f"{key} {shown(value)}" for key, value in ends.items()))
    if (name := text.get("hf_model_name")) and not hf_bert.is_published(str(name)):
        raise _other(path, f"{shown(name)} as its text tower{_told(str(name), _OTHER_TEXT_TOWERS)}")
    if model.get("multimodal_cfg") is not None:
        raise _other(path, "a text decoder, as CoCa has it")


def _told(name: str, parts: dict[str, str]) -> str:
    return "".join(f", which has {part}" for beginning, part in parts.items() if name.startswith(beginning))


def _refuse_unknown(name: str, part: dict[str, Any], path: Path) -> None:
    allowed, defaults = _READ[name] | _WITHOUT_EFFECT[name], _DEFAULTS[name]
    odd = [k for k, v in part.items() if k not in allowed and v is not None and (k not in defaults or v != defaults[k])]
    if odd:
        raise _other(path, ", ".join(f"{key} = {shown(part[key])}" for key in sorted(odd)))


def _other(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} with {what}",
        expected="the towers of CLIP, SigLIP or MobileCLIP, or BERT or RoBERTa beside CLIP's ViT",
        fix="give a checkpoint such as openai/clip-vit-base-patch32",
    )


def _mlp_act_eps(tower: dict[str, Any], width: int, quick: object, path: Path) -> dict[str, Any]:
    norm, act = section(tower, "norm_kwargs", path), section(tower, "act_kwargs", path)
    if (
        set(norm) - {"eps"}
        or act not in ({}, {"approximate": "none"}, {"approximate": "tanh"})
        or not isinstance(quick, bool)
    ):
        raise _other(path, f"norm_kwargs {shown(norm)}, act_kwargs {shown(act)} and quick_gelu {shown(quick)}")
    return {
        "intermediate_size": int(width * number(tower, "mlp_ratio", path, 4.0)),
        "hidden_act": "quick_gelu" if quick else "gelu_pytorch_tanh" if act.get("approximate") == "tanh" else "gelu",
        "layer_norm_eps": number(norm, "eps", path, 1e-5),
    }


def _text_cleaning(text: dict[str, Any], path: Path) -> tuple[TextCleaning, bool, CheckpointError | None]:
    """How open_clip cleans a text, whether it ends in padding, and why there can be none, where there can't."""
    options = dict(section(text, "tokenizer_kwargs", path))
    is_theirs = any(text.get(key) for key in ("hf_model_name", "hf_tokenizer_name"))  # whose tokenizer.json lies beside
    clean: TextCleaning = options.pop("clean", None) or ("whitespace" if is_theirs else "lower")
    ends_in_padding = is_theirs and options.get("strip_sep_token") is True
    if ends_in_padding or options.get("strip_sep_token") is False:
        del options["strip_sep_token"]
    other = {key: value for key, value in options.items() if value not in (None, "")}
    named = {"tokenizer_mode": text["tokenizer_mode"]} if text.get("tokenizer_mode") else {}
    if other or named or clean not in ("lower", "whitespace", "canonicalize"):
        odd = ", ".join(f"{k} = {shown(v)}" for k, v in {**named, **other, "clean": clean}.items())
        return (
            "lower",
            False,
            CheckpointError(
                f"{path} with the tokenizer of {odd}",
                expected="CLIP's own, with clean lower, whitespace or canonicalize",
                fix="give a checkpoint such as openai/clip-vit-base-patch32 for texts",
            ),
        )
    return clean, ends_in_padding, None
