"""`edgeclip embed`: embeddings of many images or texts in one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from edgeclip.cli.options import BulkSettings
from edgeclip.errors import ConfigError, DataError

BATCHES_SORTED_TOGETHER = 64


class EmbedSettings(BulkSettings, frozen=True, kw_only=True):
    """What to embed, and where to."""

    out: Annotated[Path, Meta(description="FILE.npy, .jsonl or .csv; rows that are in it already are kept.")]
    texts: Annotated[
        str | None, Meta(description="Embed texts instead: a file with one a line, or - for standard input.")
    ] = None
    batch_size: Annotated[
        int, Meta(ge=1, le=4096, description="Items of one run of the graph; in an int8 graph they sway each other.")
    ] = 1
    dtype: Annotated[Literal["float32", "float16", "int8"], Meta(description="int8 is round(127 x).")] = "float32"


def command(settings: EmbedSettings) -> None:
    """Embed images or texts into a file. Interrupted at any moment, the same command goes on where it stopped."""
    from edgeclip.bulk.embedding_file import EmbeddingFile, Origin
    from edgeclip.bulk.images import count_images, intact, list_images, not_empty
    from edgeclip.cpu import processors
    from edgeclip.progress import task
    from edgeclip.runtime import load
    from edgeclip.runtime.embedding_dtype import as_dtype

    texts, paths = settings.texts, settings.paths
    if bool(paths) == (texts is not None):
        raise ConfigError(
            "both `paths` and `texts`, or neither", expected="one of them", fix="give either `paths` or `texts`"
        )
    clip = load(settings.bundle, threads=settings.threads)
    kind: Literal["path", "text"] = "path" if texts is None else "text"
    origin = Origin(
        fingerprint=clip.bundle.manifest.fingerprint,
        rows=kind,
        dtype=settings.dtype,
        embedding_size=clip.embedding_size,
    )
    unit = "images" if texts is None else "texts"
    total = None
    if sys.stderr is not None and sys.stderr.isatty():  # counting walks all folders once more, and only a bar shows it
        total = count_images(paths) if texts is None else _count_texts(texts)
    names = not_empty(list_images(paths) if texts is None else _read_texts(texts), unit)
    batch_size = settings.batch_size
    group = batch_size if texts is None or batch_size == 1 else batch_size * BATCHES_SORTED_TOGETHER
    workers = processors() if settings.workers is None else settings.workers
    with EmbeddingFile(settings.out, origin, group=group) as file:
        before = file.rows
        with task("Embedding", total and max(total - before, 0), unit=unit) as advance:
            new = file.missing(names)
            embedded: Iterator[tuple[str, Any]]
            if texts is None:
                images = clip.stream_images(new, batch_size=batch_size, workers=workers)
                embedded = intact(images, settings.on_bad_image)
            else:
                embedded = clip.stream_texts(new, group=group, batch_size=batch_size, workers=workers)
            for name, embeds in embedded:
                file.append(name, as_dtype(embeds, settings.dtype))
                advance()
    if not file.rows:
        raise DataError(
            "images, none of which can be read",
            expected="at least one",
            fix="give other `paths`; the reasons are above",
        )
    print(f"{settings.out}  {file.rows} rows, {file.rows - before} of them new")


def _read_texts(source: str) -> Iterator[Any]:
    from edgeclip.bulk.images import open_stdin
    from edgeclip.bulk.listing import STDIN, read_texts

    with open_stdin() if source == STDIN else Path(source).open("rb", buffering=0) as file:
        yield from read_texts(file)


def _count_texts(source: str) -> int | None:
    """How many texts there are, where that can be known beforehand."""
    from edgeclip.runtime.stream import FLUSH

    if not Path(source).is_file():
        return None
    return sum(text is not FLUSH for text in _read_texts(source))
