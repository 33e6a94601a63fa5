"""A tiny model of every family learns from the built-in teacher in seconds, and its int8 bundle finds what it finds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from tokenizers import Tokenizer

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.config import Bert, ClipConfig, ConvStages, PreprocessConfig, Stage, TextConfig, VisionConfig
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import Prepared, prepare
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.distill.losses.mix import LossMix
from edgeclip.distill.recipe import CacheConfig, DistillRecipe
from edgeclip.distill.teacher import build_cache
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import start_accelerator
from edgeclip.distill.training_stage import StageContext, train_stage
from edgeclip.evaluate.encoder import Encoder
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples
from edgeclip.model import Clip
from edgeclip.runtime.clip import load
from edgeclip.tokenizer import ClipTokenizer
from tests import published
from tests.once import MadeOnce

SIDE, CONTEXT, SCENES, UNSEEN = 64, 40, 1000, 200
CAPTIONS = 2
"""Of each scene."""
CHANCE = 5.0
"""R@10 of so many unseen scenes, %."""
TOWER = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    **{"hidden_act": "gelu", "layer_norm_eps": 1e-5},
}
VISION = VisionConfig(**TOWER, image_size=SIDE, patch_size=16)
STAGES = (
    *(Stage(width=32, depth=1), Stage(width=32, depth=1)),
    *(Stage(width=64, depth=2, squeezes=True), Stage(width=64, depth=1, attends=True)),
)
CONVOLUTIONS = VisionConfig(
    **TOWER | {"num_hidden_layers": 5},
    **{"image_size": SIDE, "patch_size": 32, "pooling": "places"},
    convolutions=ConvStages(stages=STAGES, norm="affine"),
)
TEXT = TextConfig(**TOWER, vocab_size=published.WORDS, context_length=CONTEXT, eos_token_id=None)


@dataclass(frozen=True)
class Family:
    """What a family's small model is, and the tokenizer that it has, of some captions."""

    config: ClipConfig
    preprocess: PreprocessConfig
    tokenizer: Callable[[list[str]], ClipTokenizer]
    epochs: int = 3


def tokens(
    make: Callable[[list[str]], Tokenizer], eos: str, pad: str, **options: bool
) -> Callable[[list[str]], ClipTokenizer]:
    return lambda captions: ClipTokenizer(
        make(captions), context_length=CONTEXT, eos_token=eos, pad_token=pad, **options
    )


def xlm_tokens(captions: list[str]) -> ClipTokenizer:
    """Whole words and letters: of 900,000 pieces most are words."""
    definition = json.loads(published.pieces(roberta=True).to_str())
    words = {word for caption in captions for word in caption.split()}
    scored = [(f"▁{word}", -5.0) for word in sorted(words)] + [(letter, -20.0) for letter in sorted({*"".join(words)})]
    definition["model"]["vocab"][4:] = scored
    definition["added_tokens"] = [token for token in definition["added_tokens"] if token["id"] < 4]
    return tokens(lambda _: Tokenizer.from_str(json.dumps(definition)), "</s>", "<pad>")(captions)


def clip_tokens(captions: list[str]) -> ClipTokenizer:
    return learn_vocabulary(captions, 600, CONTEXT, fixed_length=True)


def bert(pooling: str, **options: Any) -> TextConfig:
    return replace(TEXT, pooling=pooling, bert=Bert(pad_token_id=0, **options))


def model(text: TextConfig, vision: VisionConfig = VISION, *, sigmoid: bool = False) -> ClipConfig:
    return ClipConfig(projection_dim=64, vision=vision, text=text, sigmoid=sigmoid)


SIGLIP = model(
    replace(TEXT, pooling="last", projection_bias=True, hidden_act="gelu_pytorch_tanh"),
    replace(VISION, pooling="attention", hidden_act="gelu_pytorch_tanh"),
    sigmoid=True,
)
FAMILIES = {
    "siglip 2": Family(
        SIGLIP,
        PreprocessConfig.siglip(SIDE),
        tokens(published.gemma, "<eos>", "<pad>", fixed_length=True),
        epochs=4,
    ),
    "metaclip 2": Family(
        model(replace(TEXT, eos_token_id=2)),
        PreprocessConfig.clip(SIDE),
        xlm_tokens,
    ),
    "mobileclip": Family(
        model(replace(TEXT, vocab_size=600, sees_all=True), CONVOLUTIONS),
        PreprocessConfig.mobileclip(SIDE),
        clip_tokens,
        epochs=4,
    ),
    "chinese clip": Family(
        model(bert("first")), PreprocessConfig.clip(SIDE), tokens(published.wordpieces, "[SEP]", "[PAD]")
    ),
    "distilbert": Family(
        model(bert("mean", projection_units=80)),
        PreprocessConfig.clip(SIDE),
        tokens(published.wordpieces, "[SEP]", "[PAD]"),
    ),
}


@pytest.fixture(scope="module")
def pictures(once: MadeOnce) -> Path:
    """Scenes of the built-in world in the size that is learned from, drawn once for all families."""

    def write(folder: Path) -> None:
        records = load_data("builtin:tabletop", samples=SCENES, seed=0, training=True).records
        with (folder / "captions.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "caption"])
            for index, record in enumerate(records):
                picture = Image.fromarray(np.asarray(record.image.read())).resize((SIDE, SIDE), Image.Resampling.BOX)
                picture.save(folder / f"{index}.png")
                rows.writerows([f"{index}.png", caption] for caption in record.captions[:CAPTIONS])

    return once("small-scenes", write)


@pytest.fixture(scope="module")
def context(pictures: Path, once: MadeOnce, tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    teacher, records = load_checkpoint("builtin:tabletop"), load_data(str(pictures), samples=0, seed=0).records

    def cached(folder: Path) -> Any:
        return build_cache(teacher, records, folder, CacheConfig(), seed=0)

    return StageContext(
        recipe=DistillRecipe(
            samples=SCENES,
            loss=LossMix(feature=50.0, affinity=1.0),
            train=TrainConfig(epochs=1, batch_size=20, lr=3e-3, weight_decay=0.05, warmup_fraction=0.1),
            qad_share=0.2,
        ),
        seed=0,
        records=records,
        cache=cached(once("small-scenes-teacher", cached)),
        teacher=teacher.model,
        folder=tmp_path_factory.mktemp("states"),
        workers=0,
        accelerator=start_accelerator(cpu=True),
        on_skip=pytest.fail,
    )


def recall(encoder: Encoder, scenes: Prepared) -> float:
    """R@10 of both directions, %."""
    images, texts = encoder.encode_image(scenes.crops), encoder.encode_text(scenes.first_captions)
    i2t, t2i = retrieval(images, texts, np.arange(len(scenes)))
    return (i2t.r10.value + t2i.r10.value) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_it_learns_and_int8_keeps_what_was_learned(name: str, context: StageContext, tmp_path: Path):
    family = FAMILIES[name]
    tokenizer = family.tokenizer([caption for record in context.records for caption in record.captions])
    torch.manual_seed(0)
    student = Checkpoint(name, "", "", Clip(family.config).eval(), family.preprocess, tokenizer)
    unseen = load_data("builtin:tabletop", samples=UNSEEN, seed=5)
    scenes = prepare(unseen, range(UNSEEN), family.preprocess, workers=0, on_bad_image="skip")
    assert recall(student, scenes) < 2.5 * CHANCE
    recipe = replace(context.recipe, train=replace(context.recipe.train, epochs=family.epochs))
    train_stage(student, changed(context, recipe=recipe), name=name, resume=False, advance=lambda *a, **k: None)
    student.model.eval()
    few = scenes.first(8)
    samples = Samples("scenes", 0, few, few, few)
    export_bundle(student, tmp_path / "bundle", samples, precision="int8", threads=1, as_trained=True)
    learned, deployed = recall(student, scenes), recall(load(tmp_path / "bundle", threads=1), scenes)
    assert learned > 4 * CHANCE
    assert deployed > learned - 3
