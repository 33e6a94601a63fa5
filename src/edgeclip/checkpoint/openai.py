"""OpenAI's layout, which open_clip shares: the key table, and the configuration that follows from the shapes."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from edgeclip.checkpoint.keys import Rule, convolution, linear, same, transposed
from edgeclip.config import ClipConfig, TextConfig, VisionConfig
from edgeclip.errors import CheckpointError

IGNORED = ("input_resolution", "context_length", "vocab_size")
"""Constants that the archives carry beside the weights."""
HEAD_SIZE = 64
"""OpenAI's models all have heads of this many channels; the weights don't tell."""


def config_from_shapes(state: dict[str, Tensor], source: str) -> ClipConfig:
    """Work the configuration out from the shapes, as OpenAI's `build_model` does.

    Raises:
        CheckpointError: the tensors are not those of a CLIP with a ViT.
    """
    if "visual.layer1.0.conv1.weight" in state:
        raise CheckpointError(
            f"{source} with a ResNet image tower",
            expected="a ViT (for example ViT-B/32)",
            fix="give the file of ViT-B/32, ViT-B/16 or ViT-L/14",
        )
    shapes = ("visual.conv1.weight", "visual.proj", "visual.positional_embedding", "positional_embedding")
    absent = [n for n in (*shapes, "token_embedding.weight", "text_projection") if n not in state]
    if absent:
        raise CheckpointError(
            f"{source} without {', '.join(absent)}", expected="a CLIP checkpoint", fix="give the file of a CLIP model"
        )
    dims = {"visual.conv1.weight": 4, "token_embedding.weight": 2, "text_projection": 2, "positional_embedding": 2}
    flat = [name for name, count in dims.items() if state[name].ndim != count]
    if flat or state["visual.positional_embedding"].ndim != 2:
        raise CheckpointError(
            f"{source} with {', '.join(flat or ['visual.positional_embedding'])} of the wrong number of dimensions",
            expected="a CLIP checkpoint",
            fix="give the file of a CLIP model",
        )
    width, channels, patch_size, _ = state["visual.conv1.weight"].shape
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vocab_size, text_width = state["token_embedding.weight"].shape
    return ClipConfig(
        projection_dim=state["text_projection"].shape[1],
        vision=VisionConfig(
            image_size=grid * patch_size,
            patch_size=patch_size,
            num_channels=channels,
            **_tower(state, "visual.transformer", width),
        ),
        text=TextConfig(
            vocab_size=vocab_size,
            context_length=state["positional_embedding"].shape[0],
            eos_token_id=None,
            **_tower(state, "transformer", text_width),
        ),
    )


def _tower(state: dict[str, Tensor], prefix: str, width: int) -> dict[str, Any]:
    pattern = re.compile(re.escape(prefix) + r"\.resblocks\.(\d+)\.")
    layers = {int(match.group(1)) for match in map(pattern.match, state) if match}
    mlp = state.get(f"{prefix}.resblocks.0.mlp.c_fc.weight")
    return {
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(width // HEAD_SIZE, 1),
        "intermediate_size": 4 * width if mlp is None else mlp.shape[0],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


def rules(config: ClipConfig, text_prefix: str = "") -> list[Rule]:
    """The key table; open_clip's custom text towers put "text." before the text tower's names."""
    table = [
        same("log_logit_scale", "logit_scale"),
        same("vision.class_embedding", "visual.class_embedding"),
        same("vision.position_embedding", "visual.positional_embedding"),
        convolution(
            "vision.patch_embedding.weight", "visual.conv1.weight", config.vision.num_channels, config.vision.patch_size
        ),
        *linear("vision.pre_norm", "visual.ln_pre"),
        *linear("vision.post_norm", "visual.ln_post"),
        transposed("vision.projection.weight", "visual.proj"),
        same("text.token_embedding.weight", f"{text_prefix}token_embedding.weight"),
        same("text.position_embedding", f"{text_prefix}positional_embedding"),
        *linear("text.final_norm", f"{text_prefix}ln_final"),
        transposed("text.projection.weight", f"{text_prefix}text_projection"),
    ]
    towers = (
        ("vision", "visual.", config.vision.num_hidden_layers),
        ("text", text_prefix, config.text.num_hidden_layers),
    )
    for tower, prefix, layers in towers:
        for i in range(layers):
            ours, theirs = f"{tower}.transformer.blocks.{i}", f"{prefix}transformer.resblocks.{i}"
            table += linear(f"{ours}.norm1", f"{theirs}.ln_1")
            table += linear(f"{ours}.norm2", f"{theirs}.ln_2")
            table.append(same(f"{ours}.attention.qkv.weight", f"{theirs}.attn.in_proj_weight"))
            table.append(same(f"{ours}.attention.qkv.bias", f"{theirs}.attn.in_proj_bias"))
            table += linear(f"{ours}.attention.out", f"{theirs}.attn.out_proj")
            table += linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.c_fc")
            table += linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.c_proj")
    return table
