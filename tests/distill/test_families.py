"""A small SigLIP 2, trained on the built-in world for half a minute, and what distilling makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.compress.distill_data import load_split
from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.compress.experiment import carry_out
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import Prepared, prepare
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.distill.recipe import load_recipe
from edgeclip.distill.scratch import ScratchRecipe, train_from_scratch
from edgeclip.distill.train_config import TrainConfig
from edgeclip.errors import ConfigError
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.image import normalize
from edgeclip.model import Clip
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.shrink.plan import count_parameters, propose
from edgeclip.tokenizer import ClipTokenizer
from tests import published
from tests.e2e.training_alone import train_alone
from tests.once import MadeOnce

SIDE, CONTEXT, SCENES = 64, 32, 200
TOWER = {
    **{"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 256},
    **{"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
}
SIGLIP = ClipConfig(
    projection_dim=96,
    sigmoid=True,
    vision=VisionConfig(**TOWER, image_size=SIDE, patch_size=16, pooling="attention"),
    text=TextConfig(
        **TOWER,
        vocab_size=published.WORDS,
        context_length=CONTEXT,
        eos_token_id=1,
        pooling="last",
        projection_bias=True,
    ),
)
RECIPE = ScratchRecipe(
    data="builtin:tabletop",
    samples=6400,
    seed=0,
    vocabulary_images=200,
    model=SIGLIP,
    preprocess=PreprocessConfig.siglip(SIDE),
    train=TrainConfig(
        **{"epochs": 1, "batch_size": 64, "lr": 2e-3, "weight_decay": 0.05, "beta2": 0.98},
        **{"warmup_fraction": 0.06, "checkpoint_every": 1000},
    ),
)


def gemma(captions: list[str], vocab_size: int, context_length: int, *, fixed_length: bool) -> ClipTokenizer:
    """In the place of `learn_vocabulary`."""
    tokens = {"eos_token": "<eos>", "pad_token": "<pad>", "fixed_length": fixed_length}
    return ClipTokenizer(published.gemma(list(captions)), context_length=context_length, **tokens)


@pytest.fixture(scope="module")
def teacher(once: MadeOnce) -> Checkpoint:
    def train(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgeclip.distill.scratch.learn_vocabulary", gemma)
            train_from_scratch(RECIPE, folder, workers=0)

    return load_checkpoint(once("siglip-teacher", train) / "checkpoint")


@pytest.fixture(scope="module")
def scenes() -> Prepared:
    captions = load_data("builtin:tabletop", samples=SCENES, seed=5)
    return prepare(captions, range(SCENES), PreprocessConfig.siglip(SIDE), workers=0, on_bad_image="skip")


@torch.no_grad()
def recall(model: Clip | DeployedClip, checkpoint: Checkpoint, scenes: Prepared) -> float:
    """R@10 of both directions, %; by chance it is 5."""
    images = model.encode_image(torch.from_numpy(normalize(scenes.pixels, checkpoint.preprocess_config)))
    texts = model.encode_text(checkpoint.tokenize(scenes.first_captions))
    i2t, t2i = retrieval(images.numpy(), texts.numpy(), np.arange(SCENES))
    return (i2t.r10.value + t2i.r10.value) / 2


def test_a_learned_vocabulary_pads_where_the_model_sees_padding():
    tokenizer = learn_vocabulary(["a red ball"], 600, 12, fixed_length=True)
    assert tokenizer(["a red ball"], pad_to_longest=True).shape == (1, 12)


def test_a_recipe_may_squash_its_images():
    with pytest.raises(ConfigError, match="crop_size"):
        replace(RECIPE, preprocess=PreprocessConfig.siglip(SIDE + 1))


@pytest.mark.slow
def test_the_sigmoid_loss_teaches(teacher: Checkpoint, scenes: Prepared):
    assert teacher.config == replace(SIGLIP, text=replace(SIGLIP.text, eos_token_id=None))
    assert teacher.tokenizer.fixed_length
    assert recall(teacher.model, teacher, scenes) > 12
    assert teacher.logit_bias != -10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("qad", 1.0), ("half", 0.5)])
def test_a_student_of_each_recipe_keeps_recall_in_int8(
    name: str,
    share: float,
    teacher: Checkpoint,
    scenes: Prepared,
    bundles: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    train_alone(monkeypatch, bundles["int8"])
    monkeypatch.setattr("edgeclip.compress.experiment.measured_rows", lambda *arguments, **options: [])
    settings = DistillSettings(model=teacher.name, recipe=name, pairs=20, samples=640, workers=0, threads=1)
    recipe, data = load_recipe(name), load_split(settings, 640, teacher.preprocess_config)
    assert carry_out(settings, recipe, teacher, data, data.measured.pixels[0], tmp_path, resume=False)
    student = load_checkpoint(tmp_path / "checkpoint")
    assert count_parameters(student.config) <= share * count_parameters(teacher.config)
    assert student.config.sigmoid
    before = recall(teacher.model, teacher, scenes)
    after = recall(DeployedClip(student.model, student.preprocess_config), student, scenes)
    assert after > 0.6 * before


def test_a_quarter_of_a_b16_keeps_its_width_and_an_eighth_is_refused_for_it():
    tower = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    vision = replace(SIGLIP.vision, **tower, image_size=256)
    text = replace(SIGLIP.text, **tower, vocab_size=8000, context_length=64)
    b16 = replace(SIGLIP, projection_dim=768, vision=vision, text=text)
    quarter = propose(b16, 0.25, depth=0.5, width=0.67)
    assert (quarter.vision.num_attention_heads, len(quarter.vision.layers)) == (12, 6)
    with pytest.raises(ConfigError, match=r"6 layers of the full width 768, which is that of the embeddings"):
        propose(b16, 0.125, depth=0.5)
