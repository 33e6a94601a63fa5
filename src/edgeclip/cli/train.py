"""`edgeclip train`: contrastive training from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeclip.cli import options


def command(
    recipe: Annotated[Path, typer.Argument(help="A TOML recipe such as recipes/tabletop-teacher.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for the state, the metrics and, at the end, the checkpoint.")],
    workers: options.Workers = 2,
    threads: options.Threads = None,
    resume: options.Resume = False,
) -> None:
    """Train a CLIP from scratch and save it in the Hugging Face layout."""
    import torch

    from edgeclip.config import check_run, load_toml, processors
    from edgeclip.distill.scratch import ScratchRecipe, train_from_scratch
    from edgeclip.files import own_output_folder

    parsed = load_toml(recipe, ScratchRecipe)
    threads = processors() if threads is None else threads
    check_run(threads=threads, workers=workers, seed=parsed.seed)
    torch.set_num_threads(threads)
    with own_output_folder(out):
        checkpoint = train_from_scratch(parsed, out, workers=workers, resume=resume)
    print(checkpoint)
