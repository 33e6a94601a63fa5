"""`make docs-check`: every command and every piece of Python in README.md and docs/ is run, as it is printed.

Each page's blocks run in order, in a folder of its own where the files that they name lie: small checkpoints under
the hub ids that the pages use, in the hub's cache; captioned pictures; an edgeclip.toml that keeps runs short. What is
not run is listed with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.model import Clip

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from tests.published import write_siglip2  # noqa: E402

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_RUN = {
    "pip install": "it is installed; tests/e2e/test_base_install.py installs the wheel",
    "curl ": "it asks the server below; tests/e2e/test_serve.py asks one",
    "edgeclip serve ": "it serves until it is stopped; tests/e2e/test_serve.py starts and stops one",
    "edgeclip index pictures --db photos.db --to ": "it needs a server; tests/search/test_collection.py is without one",
    'edgeclip search "a red mug" --db qdrant': "the same",
    "edgeclip compress openai": "the checkpoint here is random, and a teacher that guesses is refused",
    "edgeclip compress builtin:tabletop --out": "docs/compress.md has it with fewer pairs",
    "edgeclip push ": "it uploads; tests/cli/test_push.py replaces the network",
    "make ": "each target is minutes of work; CI runs check and test",
}
SHORTER = {"--samples 1000": "--samples 100"}
"""The made data set is smaller than the one that the pages name."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHORT_RUNS = """
[export]
samples = 8
workers = 0
[compress]
workers = 0
[distill]
pairs = 20
repeats = 3
workers = 0
[evaluate]
workers = 0
[reproduce]
samples = 60
epochs = 1
batch_size = 8
repeats = 3
workers = 0
[train]
workers = 0
"""
RECIPE = """
data = "builtin:tabletop"
samples = 16
seed = 0
vocabulary_images = 200
[model]
projection_dim = 16
[model.vision]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 48
hidden_act = "quick_gelu"
layer_norm_eps = 1e-5
image_size = 32
patch_size = 16
[model.text]
hidden_size = 24
num_hidden_layers = 2
num_attention_heads = 3
intermediate_size = 48
hidden_act = "quick_gelu"
layer_norm_eps = 1e-5
vocab_size = 600
context_length = 16
eos_token_id = 599
[preprocess]
shortest_edge = 32
crop_size = [32, 32]
[train]
epochs = 1
batch_size = 8
lr = 1e-3
"""


def main() -> None:
    """Run everything; the exit code is 1 where something fails."""
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        environment = prepare(made)
        for page in PAGES:
            folder = made / page.stem
            shutil.copytree(made / "files", folder)
            for kind, text in BLOCK.findall(page.read_text()):
                for code in commands(text) if kind == "console" else [text]:
                    failed += not run(page.name, kind, code, folder, environment)
    print(f"{failed} failed" if failed else "all passed")
    sys.exit(bool(failed))


def commands(block: str) -> list[str]:
    """The lines of a console block, without those that are not run."""
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        for beginning, reason in NOT_RUN.items():
            if line.startswith(beginning):
                print(f"not run: {line.split('  ')[0]} ({reason})")
    return [line for line in lines if not line.startswith(tuple(NOT_RUN))]


def run(page: str, kind: str, code: str, folder: Path, environment: dict[str, str]) -> bool:
    """Run one command or one piece of Python; tell how it went."""
    for old, new in SHORTER.items():
        code = code.replace(old, new)
    command = ["bash", "-euo", "pipefail", "-c", code] if kind == "console" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    print(f"{'FAILED' if done.returncode else 'passed'}: {page}: {code.strip().splitlines()[0]}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:] + done.stderr[-2000:])
    return done.returncode == 0


def prepare(made: Path) -> dict[str, str]:
    """Make the files that pages name, and the environment that their commands run in."""
    files = made / "files"
    (files / "pictures").mkdir(parents=True)
    (files / "recipes").mkdir()
    (files / "edgeclip.toml").write_text(SHORT_RUNS)
    (files / "recipes" / "tabletop-teacher.toml").write_text(RECIPE)
    (files / "captions.txt").write_text("a red ball\ntwo blue boxes\n")
    write_pictures(files / "pictures", 3)
    shutil.copy(files / "pictures" / "0.jpg", files / "photo.jpg")
    flickr = made / "flickr8k"
    (flickr / "images").mkdir(parents=True)
    captions = write_pictures(flickr / "images", 200)
    rows = [f'{number}.jpg,"{text}"' for number, texts in enumerate(captions) for text in texts]
    (flickr / "captions.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    (files / "labels.txt").write_text("ball\nbox\nmug\n")
    for hub_id, write in HUB_IDS.items():
        repository = made / "hub" / f"models--{hub_id.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        write(repository / "snapshots" / COMMIT)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "HF_HUB_CACHE": str(made / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def write_pictures(folder: Path, count: int) -> list[list[str]]:
    """Scenes as JPEG files by number; returns the captions of each."""
    scenes = [sample_scene("docs", 0, number) for number in range(count)]
    for number, scene in enumerate(scenes):
        Image.fromarray(np.asarray(render(scene))).resize((64, 64)).save(folder / f"{number}.jpg")
    return [describe(scene) for scene in scenes]


def write_checkpoint(folder: Path) -> None:
    """A small random CLIP in the Hugging Face layout."""
    torch.manual_seed(0)
    tokenizer = load_checkpoint("builtin:tabletop").tokenizer
    tower = {"num_hidden_layers": 2, "intermediate_size": 48, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    config = ClipConfig(
        projection_dim=16,
        vision=VisionConfig(hidden_size=32, num_attention_heads=2, image_size=32, patch_size=16, **tower),
        text=TextConfig(
            hidden_size=24,
            num_attention_heads=3,
            vocab_size=tokenizer.vocab_size,
            context_length=tokenizer.context_length,
            eos_token_id=tokenizer.eos_token_id,
            **tower,
        ),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(Clip(config), PreprocessConfig.clip(32), tokenizer, folder)


HUB_IDS = {"openai/clip-vit-base-patch32": write_checkpoint, "google/siglip2-base-patch16-256": write_siglip2}
"""What the pages name, and what makes a small one of it."""


if __name__ == "__main__":
    main()
