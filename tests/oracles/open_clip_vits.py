"""Record what open_clip makes of ViTs that are not CLIP's own, narrow and shallow, with weights that are drawn.

python -m venv oracle && oracle/bin/pip install open_clip_torch==3.3.0 timm==1.0.31
oracle/bin/python -m tests.oracles.open_clip_vits
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch

from tests.oracles.weights import lively, pixels, texts_with_ends

IMAGE_SIZE, SHOWN, VOCABULARY, LENGTH = 56, 6, 600, 16
TEXT = {"width": 48, "heads": 4, "layers": 2, "vocab_size": VOCABULARY, "context_length": LENGTH}
OWN = {"width": 64, "layers": 2, "head_width": 16}
TIMMS = {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 2, "img_size": IMAGE_SIZE}
MODELS: dict[str, dict[str, Any]] = {
    "ViT-L-14-CLIPA": OWN,
    "ViT-M-16-alt": OWN,
    "MobileCLIP2-L-14": TIMMS,
    "EVA01-g-14": TIMMS,
    "MobileCLIP-B": {"depth": 1, "mlp_ratio": 0.25, "img_size": IMAGE_SIZE},
    "ViT-SO400M-16-SigLIP-i18n-256": {**TIMMS, "mlp_ratio": 1},
}
RECORDED = Path(__file__).with_suffix(".json")


@torch.no_grad()
def recorded(name: str, narrower: dict[str, Any]) -> dict[str, object]:
    """One model's configuration, shapes and the first numbers of its embeddings."""
    config = open_clip.get_model_config(name)
    is_custom = config.pop("custom_text", False)
    is_timms = "timm_model_name" in config["vision_cfg"]
    config["embed_dim"] = 64 if config["text_cfg"].get("proj_type") == "none" else 48
    config["text_cfg"] |= {**TEXT, "width": config["embed_dim"]}
    config["vision_cfg"] |= {"image_size": IMAGE_SIZE, **({} if is_timms else narrower)}
    create = timm.create_model
    open_clip.timm_model.timm.create_model = lambda *args, **options: create(*args, **options, **narrower)
    try:
        model = (open_clip.model.CustomTextCLIP if is_custom else open_clip.model.CLIP)(**config).eval()
    finally:
        open_clip.timm_model.timm.create_model = create
    state = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    model.load_state_dict(lively(shapes), strict=False)
    image = model.encode_image(pixels(IMAGE_SIZE), normalize=True)
    text = model.encode_text(texts_with_ends(LENGTH, VOCABULARY), normalize=True)
    return {
        "model_cfg": config,
        "narrower": narrower,
        "shapes": shapes,
        "image_embeds": image[:, :SHOWN].tolist(),
        "text_embeds": text[:, :SHOWN].tolist(),
    }


if __name__ == "__main__":
    content = {
        "versions": {"open_clip": open_clip.__version__, "timm": timm.__version__, "torch": torch.__version__},
        "models": {name: recorded(name, narrower) for name, narrower in MODELS.items()},
    }
    RECORDED.write_text(json.dumps(content) + "\n")
