"""Record what open_clip makes of its MobileCLIP architectures, narrow and shallow, with weights that are drawn.

python -m venv oracle && oracle/bin/pip install open_clip_torch==3.3.0 timm==1.0.31
oracle/bin/python -m tests.oracles.mobileclip
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch

from tests.oracles.weights import lively, pixels, texts_with_ends

CONVOLUTIONS = {"embed_dims": (32, 64, 64, 128), "layers": (1, 1, 2, 1)}
LARGER = {"embed_dims": (32, 32, 64, 64, 128), "layers": (1, 1, 1, 1, 2)}
MODELS: dict[str, dict[str, Any]] = {
    "MobileCLIP-S1": CONVOLUTIONS,
    "MobileCLIP2-S0": CONVOLUTIONS,
    "MobileCLIP2-S3": LARGER,
}
IMAGE_SIZE, SHOWN = 64, 6
TEXT = {"width": 64, "heads": 4, "layers": 2, "vocab_size": 600, "context_length": 16}
RECORDED = Path(__file__).with_suffix(".json")


NO_BIAS = "visual.trunk.head.fc.bias"
APPLES = {
    "visual.trunk.stem.": "patch_embed.",
    "conv_kxk": "rbr_conv",
    "conv_scale": "rbr_scale",
    "identity": "rbr_skip",
    "visual.trunk.final_conv": "conv_exp",
    "large_conv": "lkb_origin",
    ".mlp.": ".convffn.",
    "se.fc1": "se.reduce",
    "se.fc2": "se.expand",
    ".gamma": "",
    "visual.trunk.head.fc.weight": "head.proj",
}
APPLES_TEXT = {
    "resblocks.": "",
    "ln_1": "pre_norm_mha.0",
    "attn.in_proj_": "pre_norm_mha.1.qkv_proj.",
    "attn.out_proj": "pre_norm_mha.1.out_proj",
    "ln_2": "pre_norm_ffn.0",
    "mlp.c_fc": "pre_norm_ffn.1",
    "mlp.c_proj": "pre_norm_ffn.4",
    "ln_final": "final_layer_norm",
    "text_projection": "projection_layer",
    "token_embedding": "embedding_layer",
    "positional_embedding": "positional_embedding.pos_embed.pos_embed",
}


def apples_name(name: str) -> str:
    """The name that Apple's code has for a tensor of open_clip's; `recorded` proves it by open_clip's own converter."""
    if name.startswith("text."):
        name = name.removeprefix("text.")
        for theirs, apples in APPLES_TEXT.items():
            name = name.replace(theirs, apples)
        return f"text_encoder.{name}"
    for theirs, apples in APPLES.items():
        name = name.replace(theirs, apples)
    match = re.fullmatch(r"visual\.trunk\.stages\.(\d)\.(blocks|downsample|pos_emb\.pos_enc)\.(.*)", name)
    if match is None:
        return f"image_encoder.model.{name}" if "logit_scale" not in name else name
    stage, kind, rest = int(match[1]), match[2], match[3]
    at = {"blocks": 2 * stage + (stage == 3), "downsample": 2 * stage - 1, "pos_emb.pos_enc": 6}[kind]
    part = {"blocks": "", "downsample": "", "pos_emb.pos_enc": "pe."}[kind]
    return f"image_encoder.model.network.{at}.{part}{rest}"


def apples_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Its shape there."""
    if name == "text.positional_embedding":
        return (1, 1, *shape)
    return shape[::-1] if name == "visual.trunk.head.fc.weight" else shape


@torch.no_grad()
def recorded(name: str, narrower: dict[str, Any], *, folded: bool = False, apples: bool = False) -> dict[str, object]:
    """One model's configuration, shapes and the first numbers of its embeddings."""
    config = open_clip.get_model_config(name)
    config.pop("custom_text")
    config["embed_dim"] = 48
    config["vision_cfg"]["image_size"] = IMAGE_SIZE
    config["text_cfg"] |= TEXT
    create = timm.create_model
    open_clip.timm_model.timm.create_model = lambda *args, **options: create(*args, **options, **narrower)
    try:
        model = open_clip.model.CustomTextCLIP(**config).eval()
    finally:
        open_clip.timm_model.timm.create_model = create
    if folded:
        model.visual = timm.utils.reparameterize_model(model.visual)
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if apples:
        shapes = {apples_name(key): apples_shape(key, shape) for key, shape in shapes.items() if key != NO_BIAS}
        converted = open_clip.convert.convert_mobile_clip_state_dict(model, lively(shapes))
        missing, unknown = model.load_state_dict(converted, strict=False)
        assert not unknown
        assert all(key.endswith("num_batches_tracked") for key in missing)
    else:
        model.load_state_dict(lively(shapes), strict=False)
    image = model.encode_image(pixels(IMAGE_SIZE), normalize=True)
    text = model.encode_text(texts_with_ends(TEXT["context_length"], TEXT["vocab_size"]), normalize=True)
    return {
        "model_cfg": config,
        "narrower": narrower,
        "shapes": shapes,
        "image_embeds": image[:, :SHOWN].tolist(),
        "text_embeds": text[:, :SHOWN].tolist(),
    }


if __name__ == "__main__":
    models = {name: recorded(name, narrower) for name, narrower in MODELS.items()}
    models["MobileCLIP-S1, folded"] = recorded("MobileCLIP-S1", CONVOLUTIONS, folded=True)
    models["MobileCLIP-S1, Apple's"] = recorded("MobileCLIP-S1", CONVOLUTIONS, apples=True)
    content = {
        "versions": {"open_clip": open_clip.__version__, "timm": timm.__version__, "torch": torch.__version__},
        "models": models,
    }
    RECORDED.write_text(json.dumps(content) + "\n")
