"""Record what Apple's code makes of the text tower of MobileCLIP-S0, narrow and shallow, with weights that are drawn.

git clone https://github.com/apple/ml-mobileclip && git -C ml-mobileclip checkout 26a6120
python -m venv oracle && oracle/bin/pip install torch torchvision timm==1.0.31
PYTHONPATH=ml-mobileclip:. oracle/bin/python -m tests.oracles.mobileclip_s0_text
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from mobileclip.text_encoder import TextTransformer
from torch.nn.functional import normalize

from tests.oracles.weights import lively, texts_with_ends

CONFIG = {
    **{"context_length": 16, "vocab_size": 600, "dim": 64, "n_heads_per_layer": 4, "n_transformer_layers": 2},
    **{"ffn_multiplier_per_layer": 4.0, "norm_layer": "layer_norm_fp32", "causal_masking": False, "model_name": "mct"},
}
EMBED_DIM, SHOWN = 48, 6
RECORDED = Path(__file__).with_suffix(".json")


def shapes_of(tower: TextTransformer) -> dict[str, tuple[int, ...]]:
    """By the names of a whole model."""
    state = {key: tensor for key, tensor in tower.state_dict().items() if not key.endswith("num_batches_tracked")}
    return {f"text_encoder.{key}": tuple(tensor.shape) for key, tensor in state.items()}


@torch.no_grad()
def recorded(*, folded: bool) -> dict[str, object]:
    """Shapes, and the first numbers of the embeddings."""
    tower = TextTransformer(CONFIG, EMBED_DIM).eval()
    if folded:
        for module in tower.modules():
            if hasattr(module, "reparameterize"):
                module.reparameterize()
    shapes = shapes_of(tower)
    weights = {key.removeprefix("text_encoder."): tensor for key, tensor in lively(shapes).items()}
    missing, unknown = tower.load_state_dict(weights, strict=False)
    assert not unknown
    assert all(key.endswith("num_batches_tracked") for key in missing)
    embeds = normalize(tower(texts_with_ends(CONFIG["context_length"], CONFIG["vocab_size"])), dim=-1)
    return {"shapes": shapes, "text_embeds": embeds[:, :SHOWN].tolist()}


if __name__ == "__main__":
    models = {"branches": recorded(folded=False), "folded": recorded(folded=True)}
    versions = {"ml-mobileclip": "26a6120", "torch": torch.__version__}
    RECORDED.write_text(json.dumps({"versions": versions, "models": models}) + "\n")
