"""Apple's own layout of MobileCLIP: its names as open_clip's, and what its tensors tell of a model.

Source: apple/ml-mobileclip, mobileclip/configs and mobileclip/models; for the names, mlfoundations/open_clip 3.3.0,
open_clip/convert.py, and timm 1.0.31, whose functions do the same.
"""

from __future__ import annotations

import re
from bisect import bisect_right

import torch
from msgspec.structs import replace
from torch import Tensor

from edgeclip.checkpoint.description import Description
from edgeclip.checkpoint.fastvit import fastvit_of, fastvit_preprocess
from edgeclip.checkpoint.timm import STEMMED, TRUNK, clip_tower
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError

IMAGE, TEXT = "image_encoder.model.", "text_encoder."
ORIGIN = "the file itself, which Apple's code wrote"
HEAD_SIZE, EPS, IMAGE_SIZE, VIT_IMAGE_SIZE = 64, 1e-5, 256, 224
_STEM = f"{IMAGE}patch_emb.0.block.conv.weight"
_BRANCHES = {
    "patch_embed.": "stem.",
    "rbr_conv": "conv_kxk",
    "rbr_scale": "conv_scale",
    "rbr_skip": "identity",
    "conv_exp": "final_conv",
    "lkb_origin": "large_conv",
    "lkb_reparam": "reparam_conv",
    "convffn": "mlp",
    "se.reduce": "se.fc1",
    "se.expand": "se.fc2",
}
_VIT = {
    "patch_emb.": "patch_embed.backbone.",
    "block.conv": "conv",
    "block.norm": "bn",
    "post_transformer_norm.": "norm.",
    "pre_norm_mha.0": "norm1",
    "pre_norm_mha.1.qkv_proj": "attn.qkv",
    "pre_norm_mha.1.out_proj": "attn.proj",
    "pre_norm_ffn.0": "norm2",
    "pre_norm_ffn.1": "mlp.fc1",
    "pre_norm_ffn.4": "mlp.fc2",
    "transformer.": "blocks.",
}
_TEXT = {
    "projection_layer": "text_projection",
    "embedding_layer": "token_embedding",
    "positional_embedding.pos_embed.pos_embed": "positional_embedding",
    "final_layer_norm": "ln_final",
    "pre_norm_mha.0": "ln_1",
    "pre_norm_mha.1.qkv_proj.": "attn.in_proj_",
    "pre_norm_mha.1.out_proj": "attn.out_proj",
    "pre_norm_ffn.0": "ln_2",
    "pre_norm_ffn.1": "mlp.c_fc",
    "pre_norm_ffn.4": "mlp.c_proj",
    "transformer.": "transformer.resblocks.",
}
_TEXT_MIXER = "text.transformer.resblocks.0.convffn.conv.conv.weight"
_TEXT_POSITIONS = ("text.positional_embedding", "text.positional_embedding", 2)
_VIT_POSITIONS = ("visual.trunk.pos_embed.pos_embed.pos_embed", "visual.trunk.pos_embed", 3)
"""Tables with more axes of size 1 before their own than open_clip's, and how many those have."""
_PROJECTIONS = {
    "visual.trunk.head.proj": "visual.trunk.head.fc",
    "visual.trunk.classifier.proj": "visual.trunk.head",
}
"""Stored as (in, out), without a bias."""


def is_apples(names: dict[str, Tensor]) -> bool:
    """Whether tensors have the names of Apple's code."""
    return any(name.startswith(IMAGE) for name in names) and f"{TEXT}embedding_layer.weight" in names


def as_open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under open_clip's names, in its shapes; a name that is not Apple's stays as it is."""
    is_vit = _STEM in state
    ends = sorted({int(match[1]) for name in state if (match := re.match(rf"{IMAGE}network\.(\d+)\.proj", name))})
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(TEXT):
            found["text." + _replaced(name.removeprefix(TEXT), _TEXT)] = tensor
        elif name.startswith(IMAGE):
            own = name.removeprefix(IMAGE)
            found["visual.trunk." + (_replaced(own, _VIT) if is_vit else _of_fastvit(own, ends))] = tensor
        else:
            found[name] = tensor
    for name, own, axes in (_TEXT_POSITIONS, _VIT_POSITIONS):
        if name in found:
            table = found.pop(name)
            found[own] = table.reshape(table.shape[-axes:]) if table.shape[:-axes].numel() == 1 else table
    for name, own in _PROJECTIONS.items():
        if name in found:
            found[f"{own}.weight"] = weight = found.pop(name).T
            found[f"{own}.bias"] = torch.zeros(len(weight))
    return found


def _replaced(name: str, parts: dict[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name


def _of_fastvit(name: str, ends: list[int]) -> str:
    """A name of the image tower, whose stages, and what halves between them, are one list in Apple's."""
    name = _replaced(name, _BRANCHES)
    name = re.sub(r"layer_scale(_[12])?$", r"layer_scale\1.gamma", name)
    match = re.match(r"network\.(\d+)\.(proj\.|pe\.|reparam_conv\.)?", name)
    if match is None:
        return name
    rest, stage = name[match.end() :], f"stages.{bisect_right(ends, int(match[1]))}"
    parts = {"proj.": "downsample.proj.", "pe.": "pos_emb.pos_enc.", "reparam_conv.": "pos_emb.reparam_conv."}
    return f"{stage}.{parts.get(match[2], 'blocks.')}{rest}"


def describe(state: dict[str, Tensor], source: str, *, is_apples: bool) -> Description | None:
    """What the tensors tell of a model, by open_clip's names; None where its image tower is not MobileCLIP's.

    Apple's code and open_clip differ in the stem of MobileCLIP-B, which sees a pixel of nothing around an image in
    Apple's, and in its eps.

    Raises:
        CheckpointError: its text tower is another.
    """
    vision = _vision(state, is_apples)
    if vision is None:
        return None
    text, projection_dim = _text(state, source, sees_all=vision.convolutions is not None)
    config = ClipConfig(projection_dim=projection_dim, vision=vision, text=text)
    own = PreprocessConfig.mobileclip(vision.image_size) if vision.stem else fastvit_preprocess(vision)
    origin = ORIGIN if is_apples else "the shapes of MobileCLIP"
    return Description(config, origin, own, origin, "lower", pad_token_id=0)


def _text(state: dict[str, Tensor], source: str, *, sees_all: bool) -> tuple[TextConfig, int]:
    """The text tower, and the width of the embeddings."""
    tables = [
        state.get(f"text.{name}") for name in ("token_embedding.weight", "positional_embedding", "text_projection")
    ]
    words, positions, projection = (None if table is None or table.ndim != 2 else table.shape for table in tables)
    if words is None or positions is None or projection is None:
        raise CheckpointError(
            f"{source} with MobileCLIP's image tower, and another text tower than it has",
            expected="a token embedding, positions and a projection",
            fix="give a folder with open_clip_config.json",
        )
    vocab_size, width = words
    mixer = [tensor.shape[-1] for name, tensor in state.items() if name == _TEXT_MIXER and tensor.ndim]  # S0's
    layers = {match[1] for name in state if (match := re.match(r"text\.transformer\.resblocks\.(\d+)\.", name))}
    text = TextConfig(
        vocab_size=vocab_size,
        context_length=positions[0],
        eos_token_id=None,
        hidden_size=width,
        num_hidden_layers=len(layers) - 2 * len(mixer),
        num_attention_heads=max(width // HEAD_SIZE, 1),
        intermediate_size=4 * width,
        hidden_act="gelu",
        layer_norm_eps=EPS,
        sees_all=sees_all,
        mixer=next(iter(mixer), None),
    )
    return text, projection[1]


def _vision(state: dict[str, Tensor], is_apples: bool) -> VisionConfig | None:
    """MobileCLIP-B's image tower, or a FastViT's."""
    if f"{TRUNK}.patch_embed.backbone.0.conv.weight" not in state:
        return fastvit_of(state, TRUNK, IMAGE_SIZE)
    tower = clip_tower(STEMMED, VIT_IMAGE_SIZE)
    if tower is None or tower.stem is None or not is_apples:
        return tower
    return replace(tower, layer_norm_eps=EPS, stem=replace(tower.stem, padding=1))
