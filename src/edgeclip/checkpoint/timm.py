"""timm's SigLIP image towers, which open_clip's models have: their sizes by name, and their key table."""

from __future__ import annotations

import re
from typing import Any

from edgeclip.checkpoint.keys import Rule, convolution, leading, linear, same, stacked, vector
from edgeclip.config import VisionConfig

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


def timm_tower(vision: VisionConfig) -> list[Rule]:
    """The key table of an image tower within open_clip's model."""
    trunk, pool, head = "visual.trunk", "visual.trunk.attn_pool", "vision.head"
    table = [
        convolution(
            "vision.patch_embedding.weight", f"{trunk}.patch_embed.proj.weight", vision.num_channels, vision.patch_size
        ),
        same("vision.patch_embedding.bias", f"{trunk}.patch_embed.proj.bias"),
        leading("vision.position_embedding", f"{trunk}.pos_embed"),
        *linear("vision.post_norm", f"{trunk}.norm"),
        vector(f"{head}.probe", f"{pool}.latent", leading=2),
        *linear(f"{head}.attention.out", f"{pool}.proj"),
        *linear(f"{head}.norm", f"{pool}.norm"),
        *linear(f"{head}.mlp.fc1", f"{pool}.mlp.fc1"),
        *linear(f"{head}.mlp.fc2", f"{pool}.mlp.fc2"),
    ]
    for part in ("weight", "bias"):
        table.append(stacked(f"{head}.attention.qkv.{part}", [f"{pool}.q.{part}", f"{pool}.kv.{part}"], (1, 2)))
    for i in range(vision.num_hidden_layers):
        ours, theirs = f"vision.transformer.blocks.{i}", f"{trunk}.blocks.{i}"
        for mine, other in (("attention.qkv", "attn.qkv"), ("attention.out", "attn.proj")):
            table += linear(f"{ours}.{mine}", f"{theirs}.{other}")
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            table += linear(f"{ours}.{name}", f"{theirs}.{name}")
    return table
