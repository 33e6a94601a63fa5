"""The Hugging Face layout of weights: the key table of `CLIPModel`. Its configuration files are read in `hf_config`."""

from __future__ import annotations

from edgeclip.checkpoint.keys import Rule, convolution, linear, same, stacked
from edgeclip.config import ClipConfig


def rules(config: ClipConfig) -> list[Rule]:
    """The key table of `CLIPModel`."""
    vision = "vision_model.embeddings"
    table = [
        same("log_logit_scale", "logit_scale"),
        same("vision.class_embedding", f"{vision}.class_embedding"),
        same("vision.position_embedding", f"{vision}.position_embedding.weight"),
        convolution(
            "vision.patch_embedding.weight",
            f"{vision}.patch_embedding.weight",
            config.vision.num_channels,
            config.vision.patch_size,
        ),
        *linear("vision.pre_norm", "vision_model.pre_layrnorm"),  # the misspelling is theirs
        *linear("vision.post_norm", "vision_model.post_layernorm"),
        same("vision.projection.weight", "visual_projection.weight"),
        same("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        same("text.position_embedding", "text_model.embeddings.position_embedding.weight"),
        *linear("text.final_norm", "text_model.final_layer_norm"),
        same("text.projection.weight", "text_projection.weight"),
    ]
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
