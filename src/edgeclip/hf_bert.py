"""Text towers of BERT's kind in configuration files, both ways: BERT, RoBERTa, XLM-RoBERTa and DistilBERT.

Sources: the configuration classes of transformers, whose defaults published files leave out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from edgeclip.config import Bert, Config, TextConfig
from edgeclip.errors import CheckpointError
from edgeclip.hf_json import integer, number, own, shown

HEAD_KEY = "text_head"
"""The key of our own in text_config for what follows the blocks, where transformers has no class for it."""


class _Kind(NamedTuple):
    """A `model_type`: its vocabulary and padding where a file is silent, and the names of its own."""

    vocab_size: int
    pad_token_id: int
    skips_padding: bool = False
    is_distilled: bool = False


_ROBERTA = _Kind(50265, 1, skips_padding=True)
_KINDS = {
    "bert": _Kind(30522, 0),
    "chinese_clip_text_model": _Kind(30522, 0),
    "distilbert": _Kind(30522, 0, is_distilled=True),
    "roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
_SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_DISTILLED = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}
"""What DistilBERT calls them."""
_DISTILLED_LAYERS = 6
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_PLAIN: dict[str, tuple[object, ...]] = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
}
"""Keys that change what a tower computes, and the values that are BERT's own."""


_PUBLISHED: dict[str, dict[str, Any]] = {
    "roberta-base": {"model_type": "roberta"},
    "roberta-large": {"model_type": "roberta", **_LARGE},
    "xlm-roberta-base": {"model_type": "xlm-roberta", "vocab_size": 250_002},
    "xlm-roberta-large": {"model_type": "xlm-roberta", "vocab_size": 250_002, **_LARGE},
}
"""The configurations of towers that others name and do not bring."""


class Head(Config, frozen=True, kw_only=True):
    """What follows the blocks; see `Bert`."""

    pooling: Literal["first", "mean"]
    pooler: bool = False
    projection_units: int | None = None
    projection_bias: bool = False


DUAL_ENCODER = Head(pooling="first", pooler=True)
"""What transformers' `VisionTextDualEncoderModel` has."""
CHINESE = Head(pooling="first")
"""What its `ChineseCLIPModel` has."""


def text_config(raw: dict[str, Any], path: Path, head: Head) -> TextConfig:
    """The tower that a configuration of BERT's kind describes, with what follows its blocks.

    Raises:
        CheckpointError: it is malformed, or of another kind.
    """
    model_type = raw.get("model_type")
    kind = _KINDS.get(model_type) if isinstance(model_type, str) else None
    odd = [key for key, plain in _PLAIN.items() if raw.get(key) not in plain]
    if kind is None or odd:
        said = f"{odd[0]} {shown(raw[odd[0]])}" if kind else f"the text tower {shown(model_type)}"
        raise CheckpointError(
            f"{path} with {said}",
            expected=f"{', '.join(kind for kind in _KINDS if '_' not in kind)}, as published",
            fix="give a checkpoint such as sentence-transformers/clip-ViT-B-32-multilingual-v1 or OFA-Sys/chinese-clip"
            "-vit-base-patch16",
        )
    sizes = dict(_SIZES)
    if kind.is_distilled:
        sizes["num_hidden_layers"] = _DISTILLED_LAYERS
        raw = {**raw, **{ours: raw[theirs] for ours, theirs in _DISTILLED.items() if theirs in raw}}
        raw = {**raw, "hidden_act": raw.get("activation", "gelu"), "layer_norm_eps": 1e-12}
    pad_token_id = integer(raw, "pad_token_id", path, kind.pad_token_id)
    unused = pad_token_id + 1 if kind.skips_padding else 0
    own: dict[str, Any] = {key: integer(raw, key, path, default) for key, default in sizes.items()}
    return TextConfig(
        **own,
        vocab_size=integer(raw, "vocab_size", path, kind.vocab_size),
        context_length=max(integer(raw, "max_position_embeddings", path, 512) - unused, 0),
        hidden_act=str(raw.get("hidden_act", "gelu")),
        layer_norm_eps=number(raw, "layer_norm_eps", path, 1e-12),
        eos_token_id=None,
        pooling=head.pooling,
        bert=Bert(
            pad_token_id=pad_token_id,
            skips_padding=kind.skips_padding,
            pooler=head.pooler,
            projection_units=head.projection_units,
            projection_bias=head.projection_bias,
        ),
    )


def is_published(name: str) -> bool:
    """Whether the sizes of a tower of that name are known."""
    return name.removeprefix("FacebookAI/") in _PUBLISHED


def published(name: str, head: Head, path: Path) -> TextConfig:
    """The tower of a name that `is_published`; `path` names it."""
    raw = {"layer_norm_eps": 1e-5, "max_position_embeddings": 514, **_PUBLISHED[name.removeprefix("FacebookAI/")]}
    return text_config(raw, path, head)


def read_head(raw: dict[str, Any], path: Path) -> Head:
    """What follows the blocks of a tower that our own `text_config_of` wrote, else transformers' own.

    Raises:
        CheckpointError: it is malformed.
    """
    return own(raw, HEAD_KEY, path, Head) if HEAD_KEY in raw else DUAL_ENCODER


def head_of(text: TextConfig) -> Head:
    """What follows a tower's blocks."""
    assert text.bert is not None and text.pooling in ("first", "mean")  # noqa: S101, PT018 - for the type checker
    bert = text.bert
    return Head(
        pooling="mean" if text.pooling == "mean" else "first",
        pooler=bert.pooler,
        projection_units=bert.projection_units,
        projection_bias=bert.projection_bias,
    )


def is_distilled(raw: dict[str, Any]) -> bool:
    """Whether a tower's tensors have DistilBERT's names."""
    kind = _KINDS.get(str(raw.get("model_type")))
    return kind is not None and kind.is_distilled


def text_config_of(text: TextConfig, *, chinese: bool) -> dict[str, Any]:
    """The text_config of a tower, with `HEAD_KEY` where transformers has no class for its head.

    Args:
        text: the tower.
        chinese: whether it is written as that of a `ChineseCLIPModel`.
    """
    bert, head = text.bert, head_of(text)
    assert bert is not None  # noqa: S101 - for the type checker
    own = {} if chinese or head == DUAL_ENCODER else {HEAD_KEY: msgspec.to_builtins(head)}
    kind = "xlm-roberta" if bert.skips_padding else "bert"
    return {
        "model_type": "chinese_clip_text_model" if chinese else kind,
        **{key: getattr(text, key) for key in (*_SIZES, "vocab_size", "hidden_act", "layer_norm_eps")},
        "max_position_embeddings": text.context_length + (bert.pad_token_id + 1 if bert.skips_padding else 0),
        "type_vocab_size": 1,
        "pad_token_id": bert.pad_token_id,
        **own,
    }
