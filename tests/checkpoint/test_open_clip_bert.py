"""open_clip's text towers of transformers' against values that open_clip gave, see tests/oracles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from edgeclip import hf_bert
from edgeclip.checkpoint import load_checkpoint, open_clip, save_checkpoint
from edgeclip.config import ClipConfig
from tests import published
from tests.oracles.weights import drawn, pixels

RECORDED = json.loads((Path(__file__).parents[1] / "oracles" / "open_clip_bert.json").read_text())
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers of the sizes that were recorded, under the published names."""
    sizes = {**SIZES, "vocab_size": 420, "max_position_embeddings": 90}
    known = {name: {**raw, **sizes} for name, raw in hf_bert._PUBLISHED.items()}
    monkeypatch.setattr(hf_bert, "_PUBLISHED", known)


def folder_of(model: dict[str, Any], folder: Path) -> Path:
    save_file(
        drawn({key: tuple(shape) for key, shape in model["shapes"].items()}), folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model["model_cfg"]}))
    published.pieces(roberta=True).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(published.ROBERTA_CONFIG))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("name", RECORDED["models"])
def test_embeddings_are_those_of_open_clip(name: str, small: None, tmp_path: Path):
    model = RECORDED["models"][name]
    checkpoint = load_checkpoint(folder_of(model, tmp_path))
    found = checkpoint.model.encode_image(pixels(32))[:, :6]
    torch.testing.assert_close(found, torch.tensor(model["image_embeds"]), atol=1e-5, rtol=0)
    input_ids = torch.tensor(model["input_ids"])
    found = checkpoint.model.encode_text(input_ids)[:, :6]
    torch.testing.assert_close(found, torch.tensor(model["text_embeds"]), atol=1e-5, rtol=0)
    assert checkpoint.config.text.context_length == 77
    save_checkpoint(checkpoint.model, checkpoint.preprocess_config, checkpoint.tokenizer, tmp_path / "saved")
    saved = load_checkpoint(tmp_path / "saved")
    assert saved.config == checkpoint.config
    assert torch.equal(saved.model.encode_text(input_ids)[:, :6], found)


def test_texts_are_repaired_and_keep_their_capitals(small: None, tmp_path: Path):
    """As open_clip's HFTokenizer does it, whose `clean` is whitespace where nothing else is said."""
    tokenizer = load_checkpoint(folder_of(next(iter(RECORDED["models"].values())), tmp_path)).tokenizer
    assert tokenizer.token_ids(["a  photo &amp; a\tcat"]) == tokenizer.token_ids(["a photo & a cat"])
    assert tokenizer.token_ids(["A cat"]) != tokenizer.token_ids(["a cat"])
    typed = "a <start_of_text> cat"  # which is no special token of this vocabulary
    assert tokenizer.token_ids([typed]) == [Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(typed).ids]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("xlm-roberta-base", (250_002, 768, 12, 12, 3072)),
        ("FacebookAI/xlm-roberta-large", (250_002, 1024, 24, 16, 4096)),
        ("roberta-base", (50_265, 768, 12, 12, 3072)),
    ],
)
def test_sizes_are_those_that_were_published(name: str, sizes: tuple[int, ...], tmp_path: Path):
    vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}
    raw = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": {"hf_model_name": name}}
    config: ClipConfig = open_clip.describe(raw, tmp_path).config
    text = config.text
    found = (text.vocab_size, text.hidden_size, text.num_hidden_layers, text.num_attention_heads)
    assert (*found, text.intermediate_size) == sizes
    assert text.bert == hf_bert.Bert(pad_token_id=1, skips_padding=True, projection_units=(sizes[1] + 512) // 2)
    assert (text.layer_norm_eps, text.context_length, text.pooling) == (1e-5, 77, "mean")
