"""Record what open_clip makes of its SigLIP architectures, two layers deep, with weights that are drawn.

python -m venv oracle && oracle/bin/pip install open_clip_torch==3.3.0 timm==1.0.31
oracle/bin/python -m tests.oracles.open_clip_siglip
"""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import timm
import torch

from tests.oracles.weights import drawn, pixels, token_ids

MODELS = ["ViT-B-16-SigLIP", "ViT-B-32-SigLIP2-256", "ViT-SO400M-14-SigLIP2"]
LAYERS, VOCABULARY, SHOWN = 2, 420, 6
RECORDED = Path(__file__).with_suffix(".json")


@torch.no_grad()
def recorded(name: str) -> dict[str, object]:
    """One model's configuration, shapes and the first numbers of its embeddings."""
    config = open_clip.get_model_config(name)
    config.pop("custom_text")
    config["text_cfg"] |= {"layers": LAYERS, "vocab_size": VOCABULARY}
    create = timm.create_model
    open_clip.timm_model.timm.create_model = lambda *args, **options: create(*args, **options, depth=LAYERS)
    try:
        model = open_clip.model.CustomTextCLIP(**config).eval()
    finally:
        open_clip.timm_model.timm.create_model = create
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(drawn(shapes))
    image = model.encode_image(pixels(config["vision_cfg"]["image_size"]), normalize=True)
    text = model.encode_text(token_ids(config["text_cfg"]["context_length"], VOCABULARY), normalize=True)
    return {
        "model_cfg": config,
        "shapes": shapes,
        "image_embeds": image[:, :SHOWN].tolist(),
        "text_embeds": text[:, :SHOWN].tolist(),
    }


if __name__ == "__main__":
    content = {
        "versions": {"open_clip": open_clip.__version__, "timm": timm.__version__, "torch": torch.__version__},
        "models": {name: recorded(name) for name in MODELS},
    }
    RECORDED.write_text(json.dumps(content) + "\n")
