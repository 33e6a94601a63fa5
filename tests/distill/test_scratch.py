"""Training from scratch, the way the built-in teacher was made, at mini size."""

import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from edgeclip.checkpoint import load_checkpoint
from edgeclip.config import load_toml
from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.scratch import ScratchRecipe, train_from_scratch
from edgeclip.errors import ConfigError, TrainingError

RECIPE = Path(__file__).parents[2] / "recipes" / "tabletop-teacher.toml"


@pytest.fixture
def recipe() -> ScratchRecipe:
    """The published recipe with a tiny model and 16 scenes."""
    raw = msgspec.to_builtins(load_toml(RECIPE, ScratchRecipe))
    raw |= {"samples": 16, "vocabulary_images": 16, "dtype": "float32"}
    raw["preprocess"] |= {"shortest_edge": 32, "crop_size": [32, 32]}
    raw["train"] |= {"batch_size": 4, "checkpoint_every": 2}
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    raw["model"]["vision"] |= {"image_size": 32, "patch_size": 16, **small}
    raw["model"]["text"] |= {"vocab_size": 560, "eos_token_id": 559, **small}
    return msgspec.convert(raw, ScratchRecipe)


@pytest.mark.slow
def test_the_result_is_a_checkpoint_and_the_run_is_repeatable(tmp_path: Path, recipe: ScratchRecipe):
    states = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        checkpoint = train_from_scratch(recipe, tmp_path / folder, workers=0)
        states.append(load_checkpoint(checkpoint).model.state_dict())
    torch.testing.assert_close(states[0], states[1], atol=0, rtol=0)
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    assert [msgspec.json.decode(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_logits_are_computed_in_full_precision(tmp_path: Path, recipe: ScratchRecipe, monkeypatch: pytest.MonkeyPatch):
    """Whatever the towers compute in: at scale 100 a bfloat16 keeps half a logit."""
    seen: list[torch.dtype] = []

    def loss(logits: torch.Tensor, *rest: torch.Tensor | None) -> torch.Tensor:
        seen.append(logits.dtype)
        return contrastive_loss(logits, *rest)

    monkeypatch.setattr("edgeclip.distill.scratch.contrastive_loss", loss)
    raw = msgspec.to_builtins(recipe)
    raw["train"]["mixed_precision"] = "bf16"
    train_from_scratch(msgspec.convert(raw, ScratchRecipe), tmp_path, workers=0)
    assert set(seen) == {torch.float32}


@pytest.mark.slow
def test_a_run_is_not_resumed_on_other_data(tmp_path: Path, recipe: ScratchRecipe, captioned_folder: Path):
    data = Path(shutil.copytree(captioned_folder, tmp_path / "data"))
    raw = msgspec.to_builtins(recipe) | {"data": str(data)}
    raw["model"]["text"] |= {"vocab_size": 520, "eos_token_id": 519}
    other = msgspec.convert(raw, ScratchRecipe)
    train_from_scratch(other, tmp_path, workers=0)
    assert train_from_scratch(other, tmp_path, workers=0, resume=True).is_dir()
    captions = (data / "captions.csv").read_text()
    (data / "captions.csv").write_text(captions.replace("the 15th picture", "the 15th drawing"))
    with pytest.raises(TrainingError, match="another data;"):
        train_from_scratch(other, tmp_path, workers=0, resume=True)


def test_a_vocabulary_that_does_not_fit_is_a_user_error(tmp_path: Path, recipe: ScratchRecipe):
    raw = msgspec.to_builtins(recipe)
    raw["model"]["text"]["eos_token_id"] = 3
    with pytest.raises(ConfigError, match="eos_token_id 3"):
        train_from_scratch(msgspec.convert(raw, ScratchRecipe), tmp_path, workers=0)
