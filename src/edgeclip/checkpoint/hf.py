"""The Hugging Face layout of weights: the key tables of `CLIPModel` and `SiglipModel`.

Their configuration files are read in `hf_config`.
"""

from __future__ import annotations

import torch

from edgeclip.checkpoint.keys import Rule, convolution, linear, one_number, same, stacked, vector
from edgeclip.config import ClipConfig
from edgeclip.hf_config import is_clip, is_siglip
from edgeclip.model import Clip


def rules(config: ClipConfig) -> list[Rule]:
    """The key table of `CLIPModel`, or of `SiglipModel`; of what transformers has not, our own names."""
    if not (is_clip(config) or is_siglip(config)):
        with torch.device("meta"):
            return [same(name, name) for name in Clip(config).state_dict()]
    vision, siglip = "vision_model.embeddings", is_siglip(config)
    table = [
        one_number("log_logit_scale", "logit_scale", is_vector=siglip),
        same("vision.position_embedding", f"{vision}.position_embedding.weight"),
        convolution(
            "vision.patch_embedding.weight",
            f"{vision}.patch_embedding.weight",
            config.vision.num_channels,
            config.vision.patch_size,
        ),
        *linear("vision.post_norm", "vision_model.post_layernorm"),
        same("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        same("text.position_embedding", "text_model.embeddings.position_embedding.weight"),
        *linear("text.final_norm", "text_model.final_layer_norm"),
        *(_siglip_ends() if siglip else _clip_ends()),
    ]
    if config.sigmoid:
        table.append(one_number("logit_bias", "logit_bias", is_vector=siglip))
    for tower, layers in (("vision", config.vision.num_hidden_layers), ("text", config.text.num_hidden_layers)):
        for i in range(layers):
            ours, theirs = f"{tower}.transformer.blocks.{i}", f"{tower}_model.encoder.layers.{i}"
            table += linear(f"{ours}.norm1", f"{theirs}.layer_norm1")
            table += linear(f"{ours}.norm2", f"{theirs}.layer_norm2")
            for part in ("weight", "bias"):
                table.append(
                    stacked(
                        f"{ours}.attention.qkv.{part}", [f"{theirs}.self_attn.{p}_proj.{part}" for p in ("q", "k", "v")]
                    )
                )
            table += linear(f"{ours}.attention.out", f"{theirs}.self_attn.out_proj")
            table += linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1")
            table += linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2")
    return table


def _clip_ends() -> list[Rule]:
    return [
        same("vision.class_embedding", "vision_model.embeddings.class_embedding"),
        *linear("vision.pre_norm", "vision_model.pre_layrnorm"),  # the misspelling is theirs
        same("vision.projection.weight", "visual_projection.weight"),
        same("text.projection.weight", "text_projection.weight"),
    ]


def _siglip_ends() -> list[Rule]:
    ours, theirs = "vision.head", "vision_model.head"
    return [
        same("vision.patch_embedding.bias", "vision_model.embeddings.patch_embedding.bias"),
        *linear("text.projection", "text_model.head"),
        vector(f"{ours}.probe", f"{theirs}.probe", leading=2),
        *(same(f"{ours}.attention.qkv.{part}", f"{theirs}.attention.in_proj_{part}") for part in ("weight", "bias")),
        *linear(f"{ours}.attention.out", f"{theirs}.attention.out_proj"),
        *linear(f"{ours}.norm", f"{theirs}.layernorm"),
        *linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2"),
    ]
