"""Published architectures, by open_clip's names: what the tensors of a checkpoint leave open follows from them.

Several of them differ in nothing but the activation, which no tensor shows: OpenAI's, DFN's and MetaCLIP's models have
`quick_gelu`, those of LAION and DataComp `gelu`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edgeclip.config import ClipConfig, TextConfig, VisionConfig

QUICK = "-quickgelu"
VOCABULARY, CONTEXT, EPS = 49_408, 77, 1e-5


class _Towers(NamedTuple):
    """Width, layers, heads and MLP width of both towers, and the width E of the space that they share."""

    embed_dim: int
    vision: tuple[int, int, int, int]
    text: tuple[int, int, int, int]


_TOWERS = {
    "S-alt": _Towers(256, (384, 12, 6, 1536), (256, 10, 4, 1024)),
    "S": _Towers(384, (384, 12, 6, 1536), (384, 12, 6, 1536)),
    "M-alt": _Towers(384, (512, 12, 8, 2048), (384, 12, 6, 1536)),
    "M": _Towers(512, (512, 12, 8, 2048), (512, 12, 8, 2048)),
    "B": _Towers(512, (768, 12, 12, 3072), (512, 12, 8, 2048)),
    "B-plus": _Towers(640, (896, 12, 14, 3584), (640, 12, 10, 2560)),
    "L": _Towers(768, (1024, 24, 16, 4096), (768, 12, 12, 3072)),
    "H": _Towers(1024, (1280, 32, 16, 5120), (1024, 24, 16, 4096)),
    "g": _Towers(1024, (1408, 40, 16, 6144), (1024, 24, 16, 4096)),
    "bigG": _Towers(1280, (1664, 48, 16, 8192), (1280, 32, 20, 5120)),
    "e": _Towers(1280, (1792, 56, 16, 15360), (1280, 36, 20, 5120)),
}

_IMAGES: dict[str, tuple[str, int, int]] = {
    "ViT-S-32": ("S", 32, 224),
    "ViT-S-16": ("S", 16, 224),
    "ViT-S-32-alt": ("S-alt", 32, 224),
    "ViT-S-16-alt": ("S-alt", 16, 224),
    "ViT-M-32": ("M", 32, 224),
    "ViT-M-16": ("M", 16, 224),
    "ViT-M-32-alt": ("M-alt", 32, 224),
    "ViT-B-32": ("B", 32, 224),
    "ViT-B-32-256": ("B", 32, 256),
    "ViT-B-16": ("B", 16, 224),
    "ViT-B-32-plus-256": ("B-plus", 32, 256),
    "ViT-B-16-plus": ("B-plus", 16, 224),
    "ViT-B-16-plus-240": ("B-plus", 16, 240),
    "ViT-L-16": ("L", 16, 224),
    "ViT-L-16-320": ("L", 16, 320),
    "ViT-L-14": ("L", 14, 224),
    "ViT-L-14-280": ("L", 14, 280),
    "ViT-L-14-336": ("L", 14, 336),
    "ViT-H-16": ("H", 16, 224),
    "ViT-H-14": ("H", 14, 224),
    "ViT-H-14-378": ("H", 14, 378),
    "ViT-g-14": ("g", 14, 224),
    "ViT-bigG-14": ("bigG", 14, 224),
    "ViT-e-14": ("e", 14, 224),
}
"""Towers, patch size and image size."""

_BOTH = {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-H-14-378", "ViT-bigG-14"}
"""Published with either activation."""


def names() -> list[str]:
    """The names of all published architectures, in order of size."""
    return [name for base in _IMAGES for name in ((base, base + QUICK) if base in _BOTH else (base,))]


def published(name: str) -> ClipConfig | None:
    """The architecture of a name, written with hyphens or, as by OpenAI, with a slash; None where there is none.

    OpenAI's names mean OpenAI's activation: "ViT-B/32" is "ViT-B-32-quickgelu".
    """
    if "/" in name:
        name = name.replace("/", "-").replace("@", "-").removesuffix("px") + QUICK
    if name not in names():
        return None
    towers, patch_size, image_size = _IMAGES[name.removesuffix(QUICK)]
    embed_dim, vision, text = _TOWERS[towers]
    act = "quick_gelu" if name.endswith(QUICK) else "gelu"
    return ClipConfig(
        projection_dim=embed_dim,
        vision=VisionConfig(image_size=image_size, patch_size=patch_size, **_tower(vision, act)),
        text=TextConfig(vocab_size=VOCABULARY, context_length=CONTEXT, eos_token_id=None, **_tower(text, act)),
    )


def _tower(sizes: tuple[int, int, int, int], act: str) -> dict[str, Any]:
    width, layers, heads, mlp = sizes
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
        "hidden_act": act,
        "layer_norm_eps": EPS,
    }
