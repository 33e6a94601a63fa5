"""`edgeclip embed`: embeddings of many images or texts in one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from edgeclip.cli import options
from edgeclip.cli.images import count_images, intact, list_images, not_empty, open_stdin
from edgeclip.errors import ConfigError, DataError

BATCHES_SORTED_TOGETHER = 64


def command(
    bundle: Annotated[Path, typer.Argument(help="Made by edgeclip export.")],
    out: Annotated[Path, typer.Option(help="FILE.npy, .jsonl or .csv; rows that are in it already are kept.")],
    paths: options.ImagePaths = None,
    texts: Annotated[
        Optional[str], typer.Option(help="Embed texts instead: a file with one a line, or - for standard input.")
    ] = None,
    workers: options.BulkWorkers = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=4096, help="Items of one run of the graph; in an int8 graph they sway each other.")
    ] = 1,
    threads: options.BulkThreads = 1,
    dtype: Annotated[Literal["float32", "float16", "int8"], typer.Option(help="int8 is round(127 x).")] = "float32",
    on_bad_image: options.OnBadImage = "skip",
) -> None:
    """Embed images or texts into a file. Interrupted at any moment, the same command goes on where it stopped."""
    from edgeclip.config import processors
    from edgeclip.progress import stage
    from edgeclip.runtime import load
    from edgeclip.runtime.embedding_file import EmbeddingFile, Origin
    from edgeclip.runtime.precision import as_dtype

    if bool(paths) == (texts is not None):
        raise ConfigError("both paths and --texts, or neither", expected="one of them", fix="choose")
    clip = load(bundle, threads=threads)
    kind: Literal["path", "text"] = "path" if texts is None else "text"
    origin = Origin(
        fingerprint=clip.bundle.manifest.fingerprint, rows=kind, dtype=dtype, embedding_size=clip.embedding_size
    )
    unit = "images" if texts is None else "texts"
    total = None
    if sys.stderr.isatty():  # counting means walking all folders once more, and only a bar shows it
        total = count_images(paths or []) if texts is None else _count_texts(texts)
    names = not_empty(list_images(paths or []) if texts is None else _read_texts(texts), unit)
    group = batch_size if texts is None or batch_size == 1 else batch_size * BATCHES_SORTED_TOGETHER
    workers = processors() if workers is None else workers
    with EmbeddingFile(out, origin, group=group) as file:
        before = file.rows
        with stage("Embedding", total and max(total - before, 0), unit=unit) as advance:
            new = file.missing(names)
            if texts is None:
                images = clip.stream_images(new, batch_size=batch_size, workers=workers)
                embedded = intact(images, on_bad_image)
            else:
                embedded = clip.stream_texts(new, group=group, batch_size=batch_size, workers=workers)
            for name, embeds in embedded:
                file.append(name, as_dtype(embeds, dtype))
                advance()
    if not file.rows:
        raise DataError("images, none of which can be read", expected="at least one", fix="see above")
    print(f"{out}  {file.rows} rows, {file.rows - before} of them new")


def _read_texts(source: str) -> Iterator[str | None]:
    from edgeclip.runtime.listing import STDIN, read_texts

    with open_stdin() if source == STDIN else Path(source).open("rb", buffering=0) as file:
        yield from read_texts(file)


def _count_texts(source: str) -> int | None:
    """How many texts there are, where that can be known beforehand."""
    if not Path(source).is_file():
        return None
    return sum(text is not None for text in _read_texts(source))
