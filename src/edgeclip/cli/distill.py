"""`edgeclip distill`: a smaller or better int8 model, taught by a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgeclip.cli import options


def command(
    model: Annotated[str, typer.Argument(help="The teacher: builtin:tabletop, a checkpoint, or a hub id.")],
    recipe: Annotated[str, typer.Option(help="qad, half, quarter, eighth, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for cache, state, checkpoint, bundle, results and report.")],
    data: options.Data = "builtin:tabletop",
    samples: Annotated[Optional[int], typer.Option(help="Images to train on; the recipe's number by default.")] = None,
    pairs: Annotated[int, typer.Option(help="Others to measure on; at most a fifth of a data set.")] = 1000,
    seed: options.Seed = 0,
    workers: options.Workers = 2,
    threads: options.Threads = None,
    vocabulary: options.Vocabulary = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    split: options.SplitName = None,
    on_bad_image: options.OnBadImage = "skip",
    repeats: Annotated[int, typer.Option(help="Timed calls of each kind, row and round.")] = 20,
    resume: options.Resume = False,
    as_json: options.Json = False,
) -> None:
    """Distil a student, export its int8 bundle, and measure it beside its teacher."""
    import msgspec

    from edgeclip.compress.experiment import distill
    from edgeclip.compress.settings import DistillSettings
    from edgeclip.config import decode_options
    from edgeclip.files import own_output_folder
    from edgeclip.report.html import write_report
    from edgeclip.report.terminal import print_results
    from edgeclip.results import REPORT, RESULTS, write_results

    given = {
        "model": model,
        "recipe": recipe,
        "data": data,
        "samples": samples,
        "pairs": pairs,
        "seed": seed,
        "workers": workers,
        "threads": threads,
        "vocabulary": vocabulary and str(vocabulary),
        "image_column": image_column,
        "caption_column": caption_column,
        "split": split,
        "on_bad_image": on_bad_image,
        "repeats": repeats,
    }
    settings = decode_options(given, DistillSettings)
    with own_output_folder(out):
        results = distill(settings, out, resume=resume)
        if results is None:
            return
        write_results(results, out / RESULTS)
        write_report(results, out / REPORT)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(results)).decode())
    else:
        print_results(results)
        print("\n" + "\n".join(str(out / name) for name in ("checkpoint", "bundle", RESULTS, REPORT)))
