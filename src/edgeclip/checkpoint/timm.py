"""timm's ViTs that open_clip's models have for image towers: their sizes by name, and their key table."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from edgeclip.checkpoint import fastvit, folding
from edgeclip.checkpoint.folding import Shape
from edgeclip.checkpoint.keys import (
    Rule,
    convolution,
    leading,
    linear,
    same,
    stacked,
    vector,
    with_bias_after_first,
    without_first,
    without_key,
)
from edgeclip.config import ConvStem, VisionConfig

_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
"""Width, layers, heads and MLP width."""
_NAME = re.compile(rf"vit_({'|'.join(_SIZES)})_patch(\d+)_siglip_\d+")
_TANH = ("vit_base_patch32_", "vit_large_patch16_siglip_512", "vit_so400m_patch16_", "vit_giantopt_")
"""Beginnings of the names whose GELU is approximated by tanh; the others have the exact one."""
EPS = 1e-6
TRUNK = "visual.trunk"
"""What the names of timm's image towers begin with, within open_clip's models."""
STEMMED = "vit_base_mci_224"
_CLASS_TOKEN = {
    STEMMED: (16, 768, 12, 12, 3072, EPS),
    "vit_large_patch14_clip_224": (14, 1024, 24, 16, 4096, 1e-5),
    "eva_giant_patch14_224": (14, 1408, 40, 16, 6144, EPS),
}
"""Patch size, width, layers, heads, MLP width, and eps of the normalisations."""
_PRE_NORM = ("vit_large_patch14_clip_224",)


def siglip_tower(name: str, image_size: int) -> VisionConfig | None:
    """The tower of a timm name such as `vit_base_patch16_siglip_224`; None where it is no SigLIP's.

    Source: huggingface/pytorch-image-models 1.0.31, timm/models/vision_transformer.py.
    """
    if (match := _NAME.fullmatch(name)) is None:
        return None
    width, layers, heads, mlp = _SIZES[match[1]]
    act: dict[str, Any] = {"hidden_act": "gelu_pytorch_tanh" if name.startswith(_TANH) else "gelu"}
    return VisionConfig(
        image_size=image_size,
        patch_size=int(match[2]),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=mlp,
        layer_norm_eps=EPS,
        pooling="attention",
        **act,
    )


def clip_tower(name: str, image_size: int) -> VisionConfig | None:
    """The tower of another timm name whose class token is pooled, such as MobileCLIP-B's; None where it is none."""
    if (sizes := _CLASS_TOKEN.get(name)) is None:
        return None
    patch_size, width, layers, heads, mlp, eps = sizes[:6]
    return VisionConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=mlp,
        hidden_act="gelu",
        layer_norm_eps=eps,
        pre_norm=name in _PRE_NORM,
        projection_bias=True,
        stem=ConvStem(width=width // 4) if name == STEMMED else None,
    )


def rules(vision: VisionConfig, trunk: str, present: Collection[str]) -> list[Rule]:
    """The key table of an image tower within open_clip's model; `present` are the names in the file."""
    if vision.convolutions is not None:
        return fastvit.rules(vision, vision.convolutions, trunk, present)
    pools = _attention_pooling(trunk) if vision.pools_by_attention else _class_token(vision, trunk, present)
    table = [*pools, *_patches(vision, trunk), *linear("vision.post_norm", f"{trunk}.norm")]
    for i in range(vision.num_hidden_layers):
        ours, theirs = f"vision.transformer.blocks.{i}", f"{trunk}.blocks.{i}"
        if f"{theirs}.attn.q_bias" in present:  # EVA's keys have no bias
            table.append(same(f"{ours}.attention.qkv.weight", f"{theirs}.attn.qkv.weight"))
            table.append(without_key(f"{ours}.attention.qkv.bias", [f"{theirs}.attn.{which}_bias" for which in "qv"]))
        else:
            table += linear(f"{ours}.attention.qkv", f"{theirs}.attn.qkv")
        table += linear(f"{ours}.attention.out", f"{theirs}.attn.proj")
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            table += linear(f"{ours}.{name}", f"{theirs}.{name}")
    return table


def _patches(vision: VisionConfig, trunk: str) -> list[Rule]:
    """What makes the patches; a stem's batch normalisations are folded."""
    patches = f"{trunk}.patch_embed"
    if vision.stem is None:
        weight = f"{patches}.proj.weight"
        table = [convolution("vision.patch_embedding.weight", weight, vision.num_channels, vision.patch_size)]
        has_bias = not vision.has_class_token
        return [*table, same("vision.patch_embedding.bias", f"{patches}.proj.bias")] if has_bias else table
    side, width = vision.patch_size // 4, vision.stem.width
    first, second = Shape(width, vision.num_channels, side, side), Shape(width, width, 2, 2)
    return [
        *folding.rules("vision.stem.0", folding.normalised(f"{patches}.backbone.0", first)),
        *folding.rules("vision.stem.2", folding.normalised(f"{patches}.backbone.1", second)),
        *linear("vision.stem.4", f"{patches}.backbone.2.conv"),
    ]


def _class_token(vision: VisionConfig, trunk: str, present: Collection[str]) -> list[Rule]:
    """A class token, which has no position where there is a stem, and timm's own classifier for a projection.

    A bias of the patches is one of their positions.
    """
    position, bias = f"{trunk}.pos_embed", f"{trunk}.patch_embed.proj.bias"
    if bias in present:
        positions = with_bias_after_first("vision.position_embedding", position, bias)
    else:
        positions = (leading if vision.stem is None else without_first)("vision.position_embedding", position)
    return [
        vector("vision.class_embedding", f"{trunk}.cls_token", leading=2),
        positions,
        *(linear("vision.pre_norm", f"{trunk}.norm_pre") if vision.pre_norm else []),
        *linear("vision.projection", f"{trunk}.head"),
    ]


def _attention_pooling(trunk: str) -> list[Rule]:
    """SigLIP's head, whose query is stored apart from keys and values."""
    pool, head = f"{trunk}.attn_pool", "vision.head"
    table = [
        leading("vision.position_embedding", f"{trunk}.pos_embed"),
        vector(f"{head}.probe", f"{pool}.latent", leading=2),
        *linear(f"{head}.attention.out", f"{pool}.proj"),
        *linear(f"{head}.norm", f"{pool}.norm"),
        *linear(f"{head}.mlp.fc1", f"{pool}.mlp.fc1"),
        *linear(f"{head}.mlp.fc2", f"{pool}.mlp.fc2"),
    ]
    for part in ("weight", "bias"):
        table.append(stacked(f"{head}.attention.qkv.{part}", [f"{pool}.q.{part}", f"{pool}.kv.{part}"], (1, 2)))
    return table
