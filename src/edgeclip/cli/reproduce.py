"""`edgeclip reproduce`: the report's table, from any checkpoint and data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgeclip.cli import options


def command(
    out: Annotated[Path, typer.Option(help="Folder for results.json, report.html and the students.")],
    model: Annotated[str, typer.Option(help="builtin:tabletop, a checkpoint, or a hub id.")] = "builtin:tabletop",
    data: options.Data = "builtin:tabletop",
    samples: Annotated[int, typer.Option(help="Image-caption pairs to sample.")] = 1000,
    val_fraction: Annotated[float, typer.Option(help="Part of them that is only evaluated on.")] = 0.2,
    alpha: Annotated[float, typer.Option(help="Weight of the teacher in the distillation loss.")] = 0.3,
    temperature: Annotated[float, typer.Option(help="Softens both distributions.")] = 1.0,
    epochs: Annotated[int, typer.Option(help="Passes over the training pairs.")] = 3,
    lr: Annotated[float, typer.Option(help="Peak learning rate; the default is Adam's own.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Pairs of a training step.")] = 32,
    workers: options.Workers = 4,
    engine: Annotated[str, typer.Option(help="auto (the fastest here), qnnpack, x86 or onednn.")] = "auto",
    normalize: Annotated[str, typer.Option(help="checkpoint (its own mean and std) or report (0.5).")] = "checkpoint",
    seed: options.Seed = 0,
    threads: options.Threads = None,
    sweep_alpha: Annotated[str, typer.Option(help="Also try these alphas, such as 0.1,0.3,0.5.")] = "",
    test_image: Annotated[Optional[Path], typer.Option(help="Picture whose best caption each model picks.")] = None,
    vocabulary: options.Vocabulary = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    split: options.SplitName = None,
    on_bad_image: options.OnBadImage = "skip",
    repeats: Annotated[int, typer.Option(help="Timed calls of each kind, model and round.")] = 20,
    with_better: Annotated[bool, typer.Option("--with-better", help="Add bundles: fp32, int8, and distilled.")] = False,
    resume: options.Resume = False,
) -> None:
    """Teacher, quantized student and distilled student of the report, measured side by side."""
    from edgeclip.config import decode_options
    from edgeclip.files import own_output_folder
    from edgeclip.report.html import write_report
    from edgeclip.report.terminal import print_results
    from edgeclip.reproduce import Settings, reproduce
    from edgeclip.results import REPORT, RESULTS, write_results

    given = {
        "model": model,
        "data": data,
        "samples": samples,
        "val_fraction": val_fraction,
        "alpha": alpha,
        "temperature": temperature,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "workers": workers,
        "engine": engine,
        "normalize": normalize,
        "seed": seed,
        "threads": threads,
        "sweep_alpha": _numbers(sweep_alpha),
        "test_image": test_image and str(test_image),
        "vocabulary": vocabulary and str(vocabulary),
        "image_column": image_column,
        "caption_column": caption_column,
        "split": split,
        "on_bad_image": on_bad_image,
        "repeats": repeats,
        "with_better": with_better,
    }
    settings = decode_options(given, Settings)
    with own_output_folder(out):
        results = reproduce(settings, out, resume=resume)
        write_results(results, out / RESULTS)
        write_report(results, out / REPORT)
    print_results(results)
    print(f"\n{out / RESULTS}\n{out / REPORT}")


def _numbers(text: str) -> list[float]:
    from edgeclip.errors import ConfigError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"--sweep-alpha {text!r}", expected="numbers such as 0.1,0.3", fix="correct it") from error
