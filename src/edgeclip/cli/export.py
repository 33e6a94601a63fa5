"""`edgeclip export`: a bundle from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeclip.bundle import Precision
from edgeclip.cli import options


def command(
    model: Annotated[str, typer.Argument(help="builtin:tabletop, a checkpoint, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder; an earlier bundle is replaced.")],
    precision: Annotated[Precision, typer.Option(help="int8 or fp32.")] = "int8",
    vocabulary: options.Vocabulary = None,
    threads: options.RuntimeThreads = None,
) -> None:
    """Write a bundle that runs without torch: ONNX graphs, tokenizer, preprocessing, manifest."""
    import os

    from edgeclip.bundle import MANIFEST
    from edgeclip.checkpoint import load_checkpoint
    from edgeclip.errors import ConfigError
    from edgeclip.export import export_bundle

    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}, which is no bundle", expected="a new folder", fix="choose another place")
    manifest = export_bundle(
        load_checkpoint(model, vocabulary=vocabulary), out, precision=precision, threads=threads or os.cpu_count() or 1
    )
    size = sum(entry.bytes for entry in manifest.files.values())
    print(f"{out}  {precision}  {size / 1e6:.1f} MB  fingerprint {manifest.fingerprint}")
