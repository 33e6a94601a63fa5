"""`edgeclip train`: contrastive training from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.cli.options import OutFolder, Resume
from edgeclip.settings import Settings, Threads, Workers, default_threads


class TrainSettings(Settings, frozen=True, kw_only=True):
    """What `edgeclip train` can be told besides its recipe."""

    recipe: Annotated[Path, Meta(description="A TOML recipe such as recipes/tabletop-teacher.toml.")]
    out: OutFolder
    workers: Workers = 2
    threads: Threads = default_threads
    resume: Resume = False


def command(settings: TrainSettings) -> None:
    """Train a CLIP from scratch and save it in the Hugging Face layout."""
    import torch

    from edgeclip.config import load_toml
    from edgeclip.distill.scratch import ScratchRecipe, train_from_scratch
    from edgeclip.files import own_output_folder

    recipe = load_toml(settings.recipe, ScratchRecipe)
    torch.set_num_threads(settings.threads)
    with own_output_folder(settings.out):
        checkpoint = train_from_scratch(recipe, settings.out, workers=settings.workers, resume=settings.resume)
    print(checkpoint)
