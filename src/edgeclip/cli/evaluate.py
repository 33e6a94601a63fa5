"""`edgeclip evaluate`: recall of a model on a data set."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from edgeclip.cli import options


def command(
    model: Annotated[str, typer.Argument(help="A checkpoint, a bundle, a student's folder, or a hub id.")],
    data: options.Data = "builtin:tabletop",
    samples: Annotated[
        Optional[int], typer.Option(help="Images to sample; all of them by default (1,000 of the built-in world).")
    ] = None,
    seed: options.Seed = 0,
    workers: options.Workers = 4,
    threads: options.Threads = None,
    vocabulary: options.Vocabulary = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    split: options.SplitName = None,
    on_bad_image: options.OnBadImage = "skip",
    as_json: options.Json = False,
) -> None:
    """Recall at 1, 5 and 10 both ways, by the report's protocol and the standard one, with 95 % intervals."""
    import msgspec

    from edgeclip.config import decode_options
    from edgeclip.report.terminal import print_evaluation
    from edgeclip.reproduce.evaluation import EvaluationSettings, evaluate

    given = {
        "model": model,
        "data": data,
        "samples": samples,
        "seed": seed,
        "workers": workers,
        "threads": threads,
        "vocabulary": vocabulary and str(vocabulary),
        "image_column": image_column,
        "caption_column": caption_column,
        "split": split,
        "on_bad_image": on_bad_image,
    }
    settings = decode_options(given, EvaluationSettings)
    evaluation = evaluate(settings)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(evaluation)).decode())
    else:
        print_evaluation(evaluation)
