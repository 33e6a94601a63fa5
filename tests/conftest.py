"""Small checkpoints and data sets, made here in the layouts that are published."""

from __future__ import annotations

import csv
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeclip.cli.main import main
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.samples import Samples, load_samples
from edgeclip.model import Clip
from edgeclip.tokenizer import ClipTokenizer
from tests.once import MadeOnce, exported_once, made_once

# The models here are tiny: a second thread mostly waits, for the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SHARED = Path(__file__).resolve().parents[2] / "shared"
WORDS = ["a red ball on the table", "two blue boxes", "a photo of a small green star", "large white mug in the snow"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole commands are slow; what is quick comes first."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_collection_finish() -> None:
    """Let later collections of garbage pass over what imports have made, which stays anyway: there are many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    return made_once(tmp_path_factory)


@pytest.fixture(scope="session", autouse=True)
def exporter(once: MadeOnce) -> Iterator[Callable[..., object]]:
    """Graphs are exported once in this process and in those beside it; this is the exporter that makes them anew."""
    export = torch.onnx.export
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", exported_once(export, once))
        yield export


@pytest.fixture
def edgeclip_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Run the command in this process, which is quicker than in one of its own."""

    def run(*arguments: object) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["edgeclip", *map(str, arguments)])
        with Path(os.devnull).open() as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            with pytest.raises(SystemExit) as ended:
                main()
        torch.set_num_threads(1)  # which it may have changed
        shown = capsys.readouterr()
        return CompletedProcess(sys.argv, ended.value.code, shown.out, shown.err)

    return run


@pytest.fixture
def mistake(edgeclip_here: Callable[..., CompletedProcess[str]]) -> Callable[..., str]:
    """Run a command that ends with a user's mistake, and give the line that tells of it."""

    def run(*arguments: object) -> str:
        done = edgeclip_here(*arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("edgeclip: ")
        return last

    return run


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
def mini_checkpoint(once: MadeOnce, config: ClipConfig, tokenizer: ClipTokenizer) -> Path:
    """A small random model in the Hugging Face layout."""

    def save(folder: Path) -> None:
        torch.manual_seed(0)
        save_checkpoint(Clip(config), PreprocessConfig.clip(config.vision.image_size), tokenizer, folder)

    return once("mini", save)


@pytest.fixture(scope="session")
def foreign_clip(tokenizer: ClipTokenizer) -> Any:
    """A tiny CLIP of transformers, which takes long to import."""
    from tests.foreign_folders import tiny_clip

    return tiny_clip(tokenizer)


@pytest.fixture(scope="session")
def foreign_folders(
    foreign_clip: Any, tokenizer: ClipTokenizer, exporter: Callable[..., object], once: MadeOnce
) -> dict[str, Path]:
    """It as other programs' ONNX graphs: both towers in each program's layout, and of fastembed's each alone."""
    from tests.foreign_folders import fastembed, immich, transformers_js

    def make(folder: Path) -> None:
        transformers_js(exporter, foreign_clip, tokenizer, folder / "transformers.js")
        immich(exporter, foreign_clip, tokenizer, folder / "immich")
        fastembed(exporter, foreign_clip, tokenizer, folder / "image", "image")
        fastembed(exporter, foreign_clip, tokenizer, folder / "text", "text")
        shutil.copytree(folder / "image", folder / "both" / "vision")
        shutil.copytree(folder / "text", folder / "both" / "text")

    folder = once("foreign", make)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def copied(foreign_folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of these, to be changed."""
    return lambda name: Path(shutil.copytree(foreign_folders[name], tmp_path / name, symlinks=True))


@pytest.fixture(scope="session")
def folder_with_a_broken_image(captioned_folder: Path, once: MadeOnce) -> Path:
    """The same pictures, but 005.jpg is none."""

    def write(folder: Path) -> None:
        shutil.copytree(captioned_folder, folder, dirs_exist_ok=True)
        (folder / "images" / "005.jpg").write_bytes(b"broken")

    return once("broken", write)


@pytest.fixture(scope="session")
def few_pairs(config: ClipConfig) -> Samples:
    """As few scenes as a bundle of the small model can be measured on."""
    settings = SampleSettings(data="builtin:tabletop", samples=6, workers=0)
    return load_samples(settings, PreprocessConfig.clip(config.vision.image_size))


@pytest.fixture(scope="session")
def captioned_folder(once: MadeOnce) -> Path:
    """24 pictures with two captions each, in the Kaggle Flickr8k layout."""
    return once("pictures", _write_pictures)


def _write_pictures(folder: Path) -> None:
    (folder / "images").mkdir()
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


@pytest.fixture(scope="session")
def checkpoint(mini_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(mini_checkpoint)


@pytest.fixture(scope="session")
def bundles(checkpoint: Checkpoint, few_pairs: Samples, once: MadeOnce) -> dict[str, Path]:
    def export(folder: Path) -> None:
        for precision in ("fp32", "int8"):
            export_bundle(checkpoint, folder / precision, few_pairs, precision=precision, threads=1)

    folder = once("bundles", export)
    return {precision: folder / precision for precision in ("fp32", "int8")}
