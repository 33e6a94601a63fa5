"""open_clip's SigLIP layout against values that open_clip gave, see tests/oracles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeclip.checkpoint import load_checkpoint, timm
from edgeclip.checkpoint.open_clip import describe
from edgeclip.errors import CheckpointError
from tests import published
from tests.oracles.weights import drawn, pixels, token_ids

RECORDED = json.loads((Path(__file__).parents[1] / "oracles" / "open_clip_siglip.json").read_text())
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@pytest.fixture
def two_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers of the published widths, as deep as those that were recorded."""
    sizes = {kind: (width, 2, heads, mlp) for kind, (width, _, heads, mlp) in timm._SIZES.items()}
    monkeypatch.setattr(timm, "_SIZES", sizes)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED["models"])
def test_embeddings_are_those_of_open_clip(name: str, two_layers: None, tmp_path: Path):
    model = RECORDED["models"][name]
    weights = drawn({key: tuple(shape) for key, shape in model["shapes"].items()})
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": model["model_cfg"], "preprocess_cfg": PREPROCESS}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    published.gemma().save(str(tmp_path / "tokenizer.json"))
    tokenizer = {"tokenizer_class": "GemmaTokenizerFast", **published.GEMMA_CONFIG}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    checkpoint = load_checkpoint(tmp_path)
    vision, text = checkpoint.model.config.vision, checkpoint.model.config.text
    for found, expected in (
        (checkpoint.model.encode_image(pixels(vision.image_size)), model["image_embeds"]),
        (checkpoint.model.encode_text(token_ids(text.context_length, text.vocab_size)), model["text_embeds"]),
    ):
        torch.testing.assert_close(found[:, :6], torch.tensor(expected), atol=1e-5, rtol=0)
    assert checkpoint.logit_bias == pytest.approx(weights["logit_bias"].item())
    side = (vision.image_size, vision.image_size)
    assert checkpoint.preprocess_config.resize_to == side
    # canonicalised first, as by open_clip's HFTokenizer
    assert (
        checkpoint.tokenizer(["A cat, on_the TABLE!"]).tolist() == checkpoint.tokenizer(["a cat on the table"]).tolist()
    )


CONFIG = RECORDED["models"]["ViT-B-16-SigLIP"]["model_cfg"]


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        ("vision_cfg", {"timm_model_name": "fastvit_sa12"}, "timm's 'fastvit_sa12' as its image tower"),
        ("vision_cfg", {"timm_pool": "avg"}, "timm_pool 'avg'"),
        ("text_cfg", {"no_causal_mask": False}, "no_causal_mask = False in its text tower"),
        ("text_cfg", {"proj_type": "mlp"}, "proj_type = 'mlp' of a text tower 768 wide"),
        ("text_cfg", {"hf_model_name": "google/mt5-base"}, "'google/mt5-base' as its text tower"),
    ],
)
def test_what_is_not_siglip_is_named(part: str, change: dict, expected: str):
    with pytest.raises(CheckpointError, match=expected):
        describe({**CONFIG, part: {**CONFIG[part], **change}}, Path("open_clip_config.json"))
