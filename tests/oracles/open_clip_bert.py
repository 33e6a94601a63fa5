"""Record what open_clip makes of text towers of transformers', small ones with weights that are drawn.

python -m venv oracle && oracle/bin/pip install open_clip_torch==3.3.0 transformers
oracle/bin/python -m tests.oracles.open_clip_bert
"""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
import transformers

from tests.oracles.weights import drawn, pixels, token_ids

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
SMALL = {**SIZES, "vocab_size": 420, "max_position_embeddings": 90, "layer_norm_eps": 1e-5, "type_vocab_size": 1}
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
EMBED_DIM, PADDING, SHOWN = 40, 1, 6
HEADS = {
    "mean and two layers": {"hf_pooler_type": "mean_pooler"},
    "first and a pooler": {"hf_pooler_type": "cls_pooler", "hf_proj_type": "linear"},
    "first and one layer": {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_proj_type": "linear"},
}
RECORDED = Path(__file__).with_suffix(".json")


def texts() -> torch.Tensor:
    """Three texts of 9, 20 and all tokens of open_clip's context, padded, with padding inside the second too."""
    ids = token_ids(open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH, SMALL["vocab_size"]).clamp(min=PADDING + 1)
    ids[0, 9:], ids[1, 20:], ids[1, 4] = PADDING, PADDING, PADDING
    return ids


@torch.no_grad()
def recorded(name: str, head: dict[str, str]) -> dict[str, object]:
    """One model's configuration, shapes and the first numbers of its embeddings."""
    config = open_clip.get_model_config(name)
    config["vision_cfg"], config["embed_dim"] = VISION, EMBED_DIM
    config["text_cfg"] |= head
    kind = transformers.XLMRobertaConfig if name.startswith("xlm") else transformers.RobertaConfig
    open_clip.hf_model.AutoConfig.from_pretrained = lambda *args, **options: kind(**SMALL)
    config["text_cfg"]["hf_model_pretrained"] = False
    model = open_clip.model.CustomTextCLIP(**config).eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(drawn(shapes))
    return {
        "model_cfg": config,
        "shapes": shapes,
        "image_embeds": model.encode_image(pixels(VISION["image_size"]), normalize=True)[:, :SHOWN].tolist(),
        "input_ids": texts().tolist(),
        "text_embeds": model.encode_text(texts(), normalize=True)[:, :SHOWN].tolist(),
    }


if __name__ == "__main__":
    versions = {module.__name__: module.__version__ for module in (open_clip, transformers, torch)}
    models = {
        f"{name}, {said}": recorded(name, head)
        for name in ("xlm-roberta-base-ViT-B-32", "roberta-ViT-B-32")
        for said, head in HEADS.items()
    }
    RECORDED.write_text(json.dumps({"versions": versions, "models": models}) + "\n")
