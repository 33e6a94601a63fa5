"""Record what open_clip makes of its MobileCLIP architectures, narrow and shallow, with weights that are drawn.

python -m venv oracle && oracle/bin/pip install open_clip_torch==3.3.0 timm==1.0.31
oracle/bin/python -m tests.oracles.mobileclip
"""

from __future__ import annotations

import json
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


@torch.no_grad()
def recorded(name: str, narrower: dict[str, Any], *, folded: bool = False) -> dict[str, object]:
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
    content = {
        "versions": {"open_clip": open_clip.__version__, "timm": timm.__version__, "torch": torch.__version__},
        "models": models,
    }
    RECORDED.write_text(json.dumps(content) + "\n")
