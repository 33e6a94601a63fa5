"""Small checkpoints and data sets, made here in the layouts that are published."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples, load_samples
from edgeclip.export.settings import SampleSettings
from edgeclip.model import Clip
from edgeclip.tokenizer import ClipTokenizer

# The models here are tiny: a second thread mostly waits, for the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SHARED = Path(__file__).resolve().parents[2] / "shared"
WORDS = ["a red ball on the table", "two blue boxes", "a photo of a small green star", "large white mug in the snow"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's prompt cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def clip_vocabulary() -> Path:
    """OpenAI's vocabulary file, which is not part of the project."""
    path = SHARED / "clip-bpe" / "bpe_simple_vocab_16e6.txt.gz"
    if not path.is_file():
        pytest.skip(f"needs OpenAI's CLIP vocabulary at {path}")
    return path


@pytest.fixture(scope="session")
def flickr() -> Path:
    """1,000 photographs with captions, which are not part of the project."""
    path = SHARED / "flickr8k-1k"
    if not path.is_dir():
        pytest.skip(f"needs photographs at {path}")
    return path


@pytest.fixture(scope="session")
def tokenizer() -> ClipTokenizer:
    return learn_vocabulary(WORDS, 600, context_length=16)


def mini_config(tokenizer: ClipTokenizer, *, image_size: int = 32, patch_size: int = 16) -> ClipConfig:
    tower = {"num_hidden_layers": 2, "intermediate_size": 48, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    return ClipConfig(
        projection_dim=16,
        vision=VisionConfig(
            hidden_size=32, num_attention_heads=2, image_size=image_size, patch_size=patch_size, **tower
        ),
        text=TextConfig(
            hidden_size=24,
            num_attention_heads=3,
            vocab_size=tokenizer.vocab_size,
            context_length=16,
            eos_token_id=tokenizer.eos_token_id,
            **tower,
        ),
    )


@pytest.fixture(scope="session")
def config(tokenizer: ClipTokenizer) -> ClipConfig:
    return mini_config(tokenizer)


@pytest.fixture
def clip(config: ClipConfig) -> Clip:
    torch.manual_seed(0)
    return Clip(config).eval()


@pytest.fixture
def varied(clip: Clip) -> Clip:
    """Random biases and normalisations too: at their initial values they would hide mistakes."""
    torch.manual_seed(2)
    for parameter in clip.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return clip


@pytest.fixture(scope="session")
def mini_checkpoint(tmp_path_factory: pytest.TempPathFactory, config: ClipConfig, tokenizer: ClipTokenizer) -> Path:
    """A small random model in the Hugging Face layout."""
    folder = tmp_path_factory.mktemp("checkpoints") / "mini"
    torch.manual_seed(0)
    save_checkpoint(Clip(config), PreprocessConfig.clip(config.vision.image_size), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def folder_with_a_broken_image(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, but 005.jpg is none."""
    folder = Path(shutil.copytree(captioned_folder, tmp_path_factory.mktemp("broken") / "pictures"))
    (folder / "images" / "005.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="session")
def few_pairs(config: ClipConfig) -> Samples:
    """As few scenes as a bundle of the small model can be measured on."""
    settings = SampleSettings(data="builtin:tabletop", samples=6, workers=0)
    return load_samples(settings, PreprocessConfig.clip(config.vision.image_size))


@pytest.fixture(scope="session")
def captioned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures with two captions each, in the Kaggle Flickr8k layout."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        for index in range(24):
            name = f"{index:03d}.jpg"
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
            writer.writerow([name, f"picture, number {index}"])
            writer.writerow([name, f"the {index}th picture"])
    return folder


@pytest.fixture(scope="session")
def checkpoint(mini_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(mini_checkpoint)


@pytest.fixture(scope="session")
def bundles(checkpoint: Checkpoint, few_pairs: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for precision in ("fp32", "int8"):
        export_bundle(checkpoint, folder / precision, few_pairs, precision=precision, threads=1)
    return {precision: folder / precision for precision in ("fp32", "int8")}
