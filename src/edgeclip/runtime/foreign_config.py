"""What the small files beside foreign graphs say: config.json in either form, preprocessing, the tokenizer's sizes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgeclip.config import PreprocessConfig, TextCleaning
from edgeclip.errors import MALFORMED, BundleError, CheckpointError, TokenizerError
from edgeclip.files import read_whole
from edgeclip.graph_model import Kind
from edgeclip.hf_config import LEGACY_EOS
from edgeclip.hf_json import integer, read_json, section, shown
from edgeclip.hf_preprocess import preprocess_from
from edgeclip.preprocess_cfg import preprocess_from_cfg
from edgeclip.runtime.foreign_layouts import TOKENIZER, TOKENIZER_CONFIG, Layout
from edgeclip.runtime.ports import Ports

FAMILIES = ("clip", "siglip", "siglip2")
TOWERS: dict[Kind, str] = {"image": "vision", "text": "text"}
OPEN_CLIP_CONTEXT = 77
"""open_clip's and Immich's own, where a configuration doesn't say."""
SIGLIP_CONTEXT = 64
"""Transformers' default."""
PADDED_TABLE = 128
"""A table of embeddings may have so many rows less one beyond the vocabulary: some round its size up."""
UNTOLD_SIZE = 224
"""Of images whose size no file tells: that of transformers' image processor, which is meant then."""
NO_LENGTH = 10**6
"""A `model_max_length` from here on stands for none."""


class Said(NamedTuple):
    """What a configuration says; None where it doesn't. Of `eos_token_id` None means the highest id of a text."""

    embedding_size: int | None = None
    image_size: int | None = None
    context_length: int | None = None
    clean: TextCleaning | None = None
    is_siglip: bool | None = None
    eos_token_id: int | None = None


def read(folder: Path, layout: Layout, kinds: Collection[Kind]) -> Said:
    """Read config.json, of each tower where they have their own.

    Raises:
        CheckpointError: it is missing, malformed, or of another kind of model.
    """
    said = [Said()]
    for kind in kinds:
        path = folder / (layout.image_config if kind == "image" else layout.text_config)
        raw = read_json(path)
        is_open_clip = layout.name == "immich" and "model_type" not in raw
        said.append(_open_clip(raw, path, kinds) if is_open_clip else _hugging_face(raw, path, kind))
    return Said(*(next((value for value in values if value is not None), None) for values in zip(*said, strict=True)))


def _hugging_face(raw: dict[str, Any], path: Path, kind: Kind) -> Said:
    tower, model_type = TOWERS[kind], raw.get("model_type")
    family = str(model_type).removesuffix(f"_{tower}_model")
    if family not in FAMILIES:
        raise CheckpointError(
            f"{path} of model_type {shown(model_type)}, whose texts or images are made in another way",
            expected=" or ".join(f"{name} or {name}_{tower}_model" for name in FAMILIES) + f" for the {kind} graph",
            fix="give a CLIP, such as Xenova/clip-vit-base-patch32",
        )
    part = raw
    if model_type == family:
        part = section(raw, f"{tower}_config", path) | section(raw, f"{tower}_config_dict", path)
    if family != "clip":
        return _siglip(part, path, kind, is_newer=family == "siglip2")
    return Said(
        embedding_size=_told(raw, "projection_dim", path),
        image_size=_told(part, "image_size", path) if kind == "image" else None,
        context_length=_told(part, "max_position_embeddings", path) if kind == "text" else None,
        eos_token_id=_end(_told(part, "eos_token_id", path)) if kind == "text" else None,
    )


def _end(told: int | None) -> int | None:
    return None if told == LEGACY_EOS else told


def _siglip(part: dict[str, Any], path: Path, kind: Kind, *, is_newer: bool) -> Said:
    """SigLIP's image tower is as wide as its embeddings, and its texts have 64 tokens where nothing else is told."""
    if kind == "text":
        size = _told(part, "projection_size", path) or _told(part, "hidden_size", path)
        return Said(size, None, integer(part, "max_position_embeddings", path, SIGLIP_CONTEXT), is_siglip=True)
    if is_newer and "image_size" not in part:
        raise CheckpointError(
            f"{path}, a NaFlex checkpoint, which takes images of any shape",
            expected="an image_size",
            fix="give one of a fixed resolution",
        )
    return Said(_told(part, "hidden_size", path), _told(part, "image_size", path), is_siglip=True)


def _open_clip(raw: dict[str, Any], path: Path, kinds: Collection[Kind]) -> Said:
    """open_clip's: the image tower may be of any kind, since its graph is all of it, but text must be CLIP's own."""
    model = section(raw, "model_cfg", path) if "model_cfg" in raw else raw
    vision, text = section(model, "vision_cfg", path), section(model, "text_cfg", path)
    options = dict(section(text, "tokenizer_kwargs", path))
    clean: Any = options.pop("clean", None) or "lower"
    odd = {key: text[key] for key in ("hf_model_name", "hf_tokenizer_name") if text.get(key)}
    odd |= {key: value for key, value in options.items() if value not in (None, "")}
    odd |= {} if clean in ("lower", "whitespace", "canonicalize") else {"clean": clean}
    odd |= {"init_logit_bias": model["init_logit_bias"]} if model.get("init_logit_bias") is not None else {}
    if odd and "text" in kinds:
        raise CheckpointError(
            f"{path} with {', '.join(f'{key} = {shown(value)}' for key, value in odd.items())} in its text tower",
            expected="CLIP's own text tower and tokenizer",
            fix="give a CLIP such as Immich's ViT-B-32__openai",
        )
    return Said(
        embedding_size=_told(model, "embed_dim", path),
        image_size=_told(vision, "image_size", path),
        context_length=integer(text, "context_length", path, OPEN_CLIP_CONTEXT),
        clean=None if clean == "lower" else clean,
        eos_token_id=_told(text, "eos_id", path) if text.get("pool_type") == "eos" else None,
    )


def _told(raw: dict[str, Any], key: str, path: Path) -> int | None:
    return None if raw.get(key) is None else integer(raw, key, path)


def preprocess(folder: Path, layout: Layout, ports: Ports, said: Said) -> PreprocessConfig:
    """How images are made, as the file says, which the graph and config.json must agree with.

    Raises:
        CheckpointError: the file is missing or malformed, or of a processor that does something else.
        BundleError: they say different sizes.
    """
    path = folder / layout.preprocess
    raw, sizes = read_json(path), {side for side in (*ports.shape[2:], said.image_size) if side is not None}
    if layout.name == "immich":
        found = preprocess_from_cfg(raw, integer(raw, "size", path), path)
    else:
        found = preprocess_from(raw, path, next(iter(sizes), UNTOLD_SIZE))
    final = found.crop_size or found.resize_to
    if final is None or {*final} != {final[0], *sizes} or ports.shape[1] not in (None, 3):
        told = " and ".join(map(str, sorted(sizes))) or "no"
        raise BundleError(
            f"{path}, whose images are of {final}, beside a graph or configuration with images of {told} pixels",
            expected="square images of one size in all of them, of 3 colours",
            fix="copy the file from the page of this model",
        )
    return found


class _Vocabulary(msgspec.Struct):
    vocab: dict[str, int] | list[Any] = {}


class _Added(msgspec.Struct):
    id: int = 0


class _Truncation(msgspec.Struct):
    max_length: int | None = None


class _TokenizerFile(msgspec.Struct):
    """The keys of tokenizer.json that tell its size."""

    model: _Vocabulary
    added_tokens: list[_Added] = []
    truncation: _Truncation | None = None


class TokenizerFacts(NamedTuple):
    """How many ids a tokenizer has, and the lengths of a text that its files tell."""

    tokens: int
    lengths: list[int]


def read_tokenizer_facts(folder: Path) -> TokenizerFacts:
    """Read a tokenizer's sizes, which takes a tenth of the time of reading the tokenizer.

    Raises:
        TokenizerError: tokenizer.json is missing or malformed.
        CheckpointError: tokenizer_config.json is malformed.
    """
    path = folder / TOKENIZER
    try:
        file = msgspec.json.decode(read_whole(path), type=_TokenizerFile)
    except (OSError, *MALFORMED) as error:
        reason = getattr(error, "strerror", None) or error
        raise TokenizerError(f"{path} ({reason})", expected="a tokenizer's file", fix="download it again") from error
    vocab = file.model.vocab
    largest = max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1
    tokens = max(largest, *(added.id for added in file.added_tokens), -1) + 1
    lengths = [file.truncation.max_length] if file.truncation and file.truncation.max_length else []
    config = folder / TOKENIZER_CONFIG
    if config.is_file():
        length = read_json(config).get("model_max_length")
        if isinstance(length, int) and not isinstance(length, bool) and 0 < length < NO_LENGTH:
            lengths.append(length)
    return TokenizerFacts(tokens, lengths)
