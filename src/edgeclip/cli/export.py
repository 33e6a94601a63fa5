"""`edgeclip export`: a bundle from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeclip.bundle import Precision
from edgeclip.cli import options


def command(
    model: Annotated[str, typer.Argument(help="builtin:tabletop, a checkpoint, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder; an earlier bundle is replaced.")],
    precision: Annotated[Precision, typer.Option(help="int8 or fp32.")] = "int8",
    layout: Annotated[
        Literal["edgeclip", "immich"],
        typer.Option(help="edgeclip, which transformers.js reads too, or what Immich's machine learning reads."),
    ] = "edgeclip",
    joint_graph: Annotated[
        bool, typer.Option("--with-joint-graph", help="Add both towers in one graph, for zero-shot pipelines.")
    ] = False,
    vocabulary: options.Vocabulary = None,
    threads: options.RuntimeThreads = None,
) -> None:
    """Write a bundle that runs without torch: ONNX graphs, tokenizer, preprocessing, manifest."""
    import os

    from edgeclip.bundle import MANIFEST
    from edgeclip.checkpoint import load_checkpoint
    from edgeclip.errors import ConfigError
    from edgeclip.export import export_bundle, export_immich

    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}, which is no bundle", expected="a new folder", fix="choose another place")
    if joint_graph and layout == "immich":
        raise ConfigError("--with-joint-graph with --layout immich", expected="one of them", fix="leave one out")
    loaded, threads = load_checkpoint(model, vocabulary=vocabulary), threads or os.cpu_count() or 1
    manifest = (
        export_immich(loaded, out, precision=precision, threads=threads)
        if layout == "immich"
        else export_bundle(loaded, out, precision=precision, threads=threads, joint_graph=joint_graph)
    )
    size = sum(entry.bytes for entry in manifest.files.values())
    print(f"{out}  {precision}  {size / 1e6:.1f} MB  fingerprint {manifest.fingerprint}")
