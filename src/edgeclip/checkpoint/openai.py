"""OpenAI's layout, which open_clip shares: the key table, and what the tensors' shapes tell."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgeclip.checkpoint import bert, timm, token_blocks
from edgeclip.checkpoint.keys import Rule, constant, convolution, linear, one_number, same, scaled_linear, transposed
from edgeclip.config import ClipConfig, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError

CONSTANTS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's archives carry beside the weights; no other writer does."""
BERT_PREFIX = "text.transformer."
"""What the names of a text tower of BERT's kind begin with, in open_clip."""
HEAD_SIZE = 64
"""OpenAI's models all have heads of this many channels; the weights don't tell."""


@dataclass(frozen=True)
class Sizes:
    """What the tensors' shapes tell: of each tower the width, layers and MLP width."""

    projection_dim: int
    image_size: int
    patch_size: int
    vision: tuple[int, int, int]
    text: tuple[int, int, int]
    vocab_size: int
    context_length: int

    @classmethod
    def of(cls, config: ClipConfig) -> Sizes:
        """Those that a configuration implies."""
        vision, text = (
            (tower.hidden_size, tower.num_hidden_layers, tower.intermediate_size)
            for tower in (config.vision, config.text)
        )
        image, patch = config.vision.image_size, config.vision.patch_size
        sizes = config.text.vocab_size, config.text.context_length
        return cls(config.projection_dim, image // patch * patch, patch, vision, text, *sizes)


def text_prefix(state: dict[str, Tensor]) -> str:
    """What open_clip's custom text towers put before the text tower's names."""
    return "text." if "text.token_embedding.weight" in state else ""


def read_sizes(state: dict[str, Tensor], source: str) -> Sizes:
    """Read the sizes from the shapes, as OpenAI's `build_model` does.

    Raises:
        CheckpointError: the tensors are not those of a CLIP with a ViT.
    """
    prefix = text_prefix(state)
    for key, what in _OTHER_KINDS.items():
        if key in state:
            raise CheckpointError(
                f"{source} with {what}",
                expected="a ViT image tower and CLIP's text tower",
                fix="give the file of ViT-B/32, ViT-B/16 or ViT-L/14",
            )
    dims = {
        "visual.conv1.weight": 4,
        "visual.proj": 2,
        "visual.positional_embedding": 2,
        **{f"{prefix}{name}": 2 for name in ("positional_embedding", "token_embedding.weight", "text_projection")},
    }
    absent = [name for name in dims if name not in state]
    if absent or any(state[name].ndim != count for name, count in dims.items()):
        flat = [name for name, count in dims.items() if not absent and state[name].ndim != count]
        raise CheckpointError(
            f"{source} {'without' if absent else 'with misshapen'} {', '.join(absent or flat)}",
            expected="a CLIP checkpoint",
            fix="give the file of a CLIP model",
        )
    width, _, patch_size, _ = state["visual.conv1.weight"].shape
    grid = math.isqrt(state["visual.positional_embedding"].shape[0] - 1)
    vocab_size, text_width = state[f"{prefix}token_embedding.weight"].shape
    return Sizes(
        projection_dim=state[f"{prefix}text_projection"].shape[1],
        image_size=grid * patch_size,
        patch_size=patch_size,
        vision=(width, *_layers(state, "visual.transformer", width)),
        text=(text_width, *_layers(state, f"{prefix}transformer", text_width)),
        vocab_size=vocab_size,
        context_length=state[f"{prefix}positional_embedding"].shape[0],
    )


_OTHER_KINDS = {
    "visual.layer1.0.conv1.weight": "a ResNet image tower",
    "visual.trunk.pos_embed": "one of timm's image towers",
    "visual.trunk.patch_embed.proj.weight": "one of timm's image towers",
    "visual.head.proj.weight": "one of timm's image towers",
    "visual.transformer.resblocks.0.ls_1.gamma": "layers that have scales",
    "logit_bias": "a bias of the logits, as SigLIP has it",
    "text_decoder.text_projection": "a text decoder, as CoCa has it",
}


def _layers(state: dict[str, Tensor], prefix: str, width: int) -> tuple[int, int]:
    """Layers of a tower, and the width of their MLPs."""
    pattern = re.compile(re.escape(prefix) + r"\.resblocks\.(\d+)\.")
    layers = {int(match.group(1)) for match in map(pattern.match, state) if match}
    mlp = state.get(f"{prefix}.resblocks.0.mlp.c_fc.weight")
    return len(layers), 4 * width if mlp is None else mlp.shape[0]


def built(sizes: Sizes) -> ClipConfig:
    """What OpenAI's `build_model` makes of the sizes: QuickGELU, and heads of 64 channels."""
    common: dict[str, Any] = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    vision, text = (
        {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "intermediate_size": mlp,
            "num_attention_heads": max(width // HEAD_SIZE, 1),
            **common,
        }
        for width, layers, mlp in (sizes.vision, sizes.text)
    )
    return ClipConfig(
        projection_dim=sizes.projection_dim,
        vision=VisionConfig(image_size=sizes.image_size, patch_size=sizes.patch_size, **vision),
        text=TextConfig(vocab_size=sizes.vocab_size, context_length=sizes.context_length, eos_token_id=None, **text),
    )


def rules(
    config: ClipConfig,
    text_prefix: str = "",
    *,
    present: Collection[str] = (),
    projects_text: bool = True,
    scaled: Collection[str] = (),
) -> list[Rule]:
    """The key table.

    Args:
        config: both towers.
        text_prefix: see `text_prefix`.
        present: the names in the file, which tell whether branches of convolutions were folded before.
        projects_text: whether there is a projection of texts; without one it changes nothing.
        scaled: the towers whose blocks scale what they add.
    """
    vision = config.vision
    table = [
        one_number("log_logit_scale", "logit_scale"),
        *([one_number("logit_bias", "logit_bias")] if config.sigmoid else []),
    ]
    if config.text.bert is not None:
        names = ("text.proj.0", "text.proj.2") if config.text.bert.projection_units else ("text.proj", "")
        table += [*bert.blocks(config.text, BERT_PREFIX), *bert.projection(config.text, *names)]
    else:
        table += [
            same("text.token_embedding.weight", f"{text_prefix}token_embedding.weight"),
            same("text.position_embedding", f"{text_prefix}positional_embedding"),
            *linear("text.final_norm", f"{text_prefix}ln_final"),
            *_text_blocks(config.text, text_prefix, present, scaled),
            *_text_projection(config, f"{text_prefix}text_projection" if projects_text else None),
        ]
    if vision.pools_by_attention or vision.projection_bias:  # which open_clip's own towers have not
        return [*table, *timm.rules(vision, timm.TRUNK, present)]
    return [
        *table,
        same("vision.class_embedding", "visual.class_embedding"),
        same("vision.position_embedding", "visual.positional_embedding"),
        convolution("vision.patch_embedding.weight", "visual.conv1.weight", vision.num_channels, vision.patch_size),
        *(linear("vision.pre_norm", "visual.ln_pre") if vision.pre_norm else []),
        *linear("vision.post_norm", "visual.ln_post"),
        transposed("vision.projection.weight", "visual.proj"),
        *_blocks("vision", "visual.", vision.num_hidden_layers, scaled),
    ]


def _text_projection(config: ClipConfig, name: str | None) -> list[Rule]:
    """A Linear or a matrix; without a name none, which changes nothing."""
    ours, E = "text.projection", config.projection_dim
    if name is None:
        bias = [constant(f"{ours}.bias", torch.zeros(E))] if config.text.projection_bias else []
        return [constant(f"{ours}.weight", torch.eye(E)), *bias]
    return linear(ours, name) if config.text.projection_bias else [transposed(f"{ours}.weight", name)]


def _text_blocks(text: TextConfig, prefix: str, present: Collection[str], scaled: Collection[str]) -> list[Rule]:
    if text.mixer is None:
        return _blocks("text", prefix, text.num_hidden_layers, scaled)
    mixers = token_blocks.rules(text, f"{prefix}transformer.resblocks", present)
    return [*mixers, *_blocks("text", prefix, text.num_hidden_layers, scaled, first=1)]


def _blocks(tower: str, prefix: str, layers: int, scaled: Collection[str], *, first: int = 0) -> list[Rule]:
    """The blocks of a tower, from the `first` on; what scales a branch is folded into the last layer of it."""
    table: list[Rule] = []
    for i in range(first, first + layers):
        ours, theirs = f"{tower}.transformer.blocks.{i}", f"{prefix}transformer.resblocks.{i}"
        table += linear(f"{ours}.norm1", f"{theirs}.ln_1")
        table += linear(f"{ours}.norm2", f"{theirs}.ln_2")
        table.append(same(f"{ours}.attention.qkv.weight", f"{theirs}.attn.in_proj_weight"))
        table.append(same(f"{ours}.attention.qkv.bias", f"{theirs}.attn.in_proj_bias"))
        table += linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.c_fc")
        for mine, other, scale in (("attention.out", "attn.out_proj", "ls_1"), ("mlp.fc2", "mlp.c_proj", "ls_2")):
            if tower in scaled:
                table += scaled_linear(f"{ours}.{mine}", f"{theirs}.{other}", f"{theirs}.{scale}.gamma")
            else:
                table += linear(f"{ours}.{mine}", f"{theirs}.{other}")
    return table
