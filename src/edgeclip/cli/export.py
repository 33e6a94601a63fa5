"""`edgeclip export`: a bundle from a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeclip.cli import options


def command(
    model: Annotated[str, typer.Argument(help="builtin:tabletop, a checkpoint, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder; an earlier bundle is replaced.")],
    precision: Annotated[
        Literal["int8", "fp32", "auto"], typer.Option(help="int8, fp32, or auto: int8 where it keeps the accuracy.")
    ] = "int8",
    layout: Annotated[
        Literal["edgeclip", "immich"],
        typer.Option(help="edgeclip, which transformers.js reads too, or what Immich's machine learning reads."),
    ] = "edgeclip",
    joint_graph: Annotated[
        bool, typer.Option("--with-joint-graph", help="Add both towers in one graph, for zero-shot pipelines.")
    ] = False,
    data: options.Data = "builtin:tabletop",
    samples: Annotated[int, typer.Option(help="Pairs for the release card; 16 more calibrate.")] = 200,
    seed: options.Seed = 0,
    workers: options.Workers = 2,
    threads: options.Threads = None,
    vocabulary: options.Vocabulary = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    split: options.SplitName = None,
    on_bad_image: options.OnBadImage = "skip",
) -> None:
    """Write a bundle that runs without torch: ONNX graphs, tokenizer, preprocessing, manifest, release card."""
    import torch

    from edgeclip.bundle import check_replaceable
    from edgeclip.checkpoint import load_checkpoint
    from edgeclip.config import check_run, decode_options, processors
    from edgeclip.errors import ConfigError
    from edgeclip.export import export_bundle, export_immich
    from edgeclip.export.samples import SampleSettings, load_samples

    out = out.resolve()
    check_replaceable(out)
    if joint_graph and layout == "immich":
        raise ConfigError("--with-joint-graph with --layout immich", expected="one of them", fix="leave one out")
    given = {
        "data": data,
        "samples": samples,
        "seed": seed,
        "workers": workers,
        "image_column": image_column,
        "caption_column": caption_column,
        "split": split,
        "on_bad_image": on_bad_image,
    }
    settings = decode_options(given, SampleSettings)
    threads = processors() if threads is None else threads
    check_run(threads=threads, workers=workers, seed=seed)
    torch.set_num_threads(threads)
    loaded = load_checkpoint(model, vocabulary=vocabulary)
    pairs = load_samples(settings, loaded.preprocess_config)
    manifest, card = (
        export_immich(loaded, out, pairs, precision=precision, threads=threads)
        if layout == "immich"
        else export_bundle(loaded, out, pairs, precision=precision, threads=threads, joint_graph=joint_graph)
    )
    size = sum(entry.bytes for entry in manifest.files.values())
    print(f"{out}  {manifest.precision}  {size / 1e6:.1f} MB  fingerprint {manifest.fingerprint}")
    print(card.summary)
    if not card.keeps_accuracy:
        print("edgeclip: this bundle lost accuracy; --precision fp32 keeps it", file=sys.stderr)
