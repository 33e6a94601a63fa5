"""The Hugging Face layout of weights: the key tables of `CLIPModel`, `SiglipModel`, `ChineseCLIPModel` and
`VisionTextDualEncoderModel`.

Their configuration files are read in `hf_config`.
"""

from __future__ import annotations

import torch

from edgeclip.checkpoint import bert
from edgeclip.checkpoint.keys import Rule, convolution, linear, one_number, same, stacked, vector
from edgeclip.config import ClipConfig, TextConfig, VisionConfig
from edgeclip.hf_config import is_own
from edgeclip.model import Clip

VISION, TEXT = "vision_model", "text_model"
"""What the names of the towers begin with."""


def rules(config: ClipConfig) -> list[Rule]:
    """The key table of the class that a configuration is written as; see `hf_config.write_config`."""
    if is_own(config):
        with torch.device("meta"):
            return [same(name, name) for name in Clip(config).state_dict()]
    is_siglip = config.vision.pools_by_attention
    table = [one_number("log_logit_scale", "logit_scale", is_vector=is_siglip)]
    if config.sigmoid:
        table.append(one_number("logit_bias", "logit_bias", is_vector=is_siglip))
    return [*table, *tower_rules(config.vision), *tower_rules(config.text)]


def tower_rules(config: VisionConfig | TextConfig) -> list[Rule]:
    """The key table of one of the towers."""
    if isinstance(config, VisionConfig):
        return [*_vision(config), *_blocks("vision", config.num_hidden_layers)]
    return [*_text(config), *([] if config.bert else _blocks("text", config.num_hidden_layers))]


def _blocks(tower: str, layers: int) -> list[Rule]:
    table = []
    for i in range(layers):
        ours, theirs = f"{tower}.transformer.blocks.{i}", f"{tower}_model.encoder.layers.{i}"
        table += linear(f"{ours}.norm1", f"{theirs}.layer_norm1")
        table += linear(f"{ours}.norm2", f"{theirs}.layer_norm2")
        for part in ("weight", "bias"):
            qkv = [f"{theirs}.self_attn.{name}_proj.{part}" for name in ("q", "k", "v")]
            table.append(stacked(f"{ours}.attention.qkv.{part}", qkv))
        table += linear(f"{ours}.attention.out", f"{theirs}.self_attn.out_proj")
        table += linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1")
        table += linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2")
    return table


def _vision(vision: VisionConfig) -> list[Rule]:
    """The image tower, its blocks left aside."""
    embeddings = f"{VISION}.embeddings"
    return [
        same("vision.position_embedding", f"{embeddings}.position_embedding.weight"),
        convolution(
            "vision.patch_embedding.weight",
            f"{embeddings}.patch_embedding.weight",
            vision.num_channels,
            vision.patch_size,
        ),
        *linear("vision.post_norm", f"{VISION}.post_layernorm"),
        *(_siglip_image_ends() if vision.pools_by_attention else _clip_image_ends()),
    ]


def _text(text: TextConfig) -> list[Rule]:
    """The text tower, its blocks left aside but for those of BERT's kind."""
    if text.bert is not None:
        return [
            *bert.blocks(text, f"{TEXT}."),
            *bert.projection(text, "text_projection", "text_projection_out"),
        ]
    return [
        same("text.token_embedding.weight", f"{TEXT}.embeddings.token_embedding.weight"),
        same("text.position_embedding", f"{TEXT}.embeddings.position_embedding.weight"),
        *linear("text.final_norm", f"{TEXT}.final_layer_norm"),
        *(linear("text.projection", f"{TEXT}.head") if text.sees_padding else ()),
        *(() if text.sees_padding else [same("text.projection.weight", "text_projection.weight")]),
    ]


def _clip_image_ends() -> list[Rule]:
    return [
        same("vision.class_embedding", "vision_model.embeddings.class_embedding"),
        *linear("vision.pre_norm", "vision_model.pre_layrnorm"),  # the misspelling is theirs
        same("vision.projection.weight", "visual_projection.weight"),
    ]


def _siglip_image_ends() -> list[Rule]:
    ours, theirs = "vision.head", "vision_model.head"
    return [
        same("vision.patch_embedding.bias", "vision_model.embeddings.patch_embedding.bias"),
        vector(f"{ours}.probe", f"{theirs}.probe", leading=2),
        *(same(f"{ours}.attention.qkv.{part}", f"{theirs}.attention.in_proj_{part}") for part in ("weight", "bias")),
        *linear(f"{ours}.attention.out", f"{theirs}.attention.out_proj"),
        *linear(f"{ours}.norm", f"{theirs}.layernorm"),
        *linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2"),
    ]
