"""`edgeclip embed`: embeddings of many images or texts in one file."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from msgspec import Meta

from edgeclip.cli.options import BulkSettings
from edgeclip.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edgeclip.bulk.known_rows import FileRows

logger = logging.getLogger(__name__)

BATCHES_SORTED_TOGETHER = 64
LEFT_OUT = 3
"""Exit code where images were left out, so that whoever runs it unattended notices."""


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
    prune: Annotated[bool, Meta(description="Drop the rows of files that are no longer there.")] = False


def command(settings: EmbedSettings) -> None:
    """Embed images or texts into a file. Interrupted at any moment, the same command goes on where it stopped.

    Run again, it embeds what is new or has changed. It ends with 0, with 2 for a mistake, and with 3 where images were
    left out since they can't be read.
    """
    from edgeclip.bulk.embedding_file import EmbeddingFile, Origin
    from edgeclip.bulk.images import Intact, count_images, list_images, not_empty, root_of
    from edgeclip.bulk.path_names import path_to_text
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
    unit = "images" if texts is None else "texts"
    total = None
    if sys.stderr is not None and sys.stderr.isatty():  # counting walks all folders once more, and only a bar shows it
        total = count_images(paths) if texts is None else _count_texts(texts)
    skipped: Counter[str] = Counter()
    names = not_empty(list_images(paths, skipped) if texts is None else _read_texts(texts), unit, skipped)
    origin = Origin(
        fingerprint=clip.bundle.manifest.fingerprint,
        rows="path" if texts is None else "text",
        dtype=settings.dtype,
        embedding_size=clip.embedding_size,
        root=path_to_text(str(root_of(paths))) if texts is None else None,
    )
    batch_size = settings.batch_size
    group = batch_size if texts is None or batch_size == 1 else batch_size * BATCHES_SORTED_TOGETHER
    workers = processors() if settings.workers is None else settings.workers
    left_out = 0
    with (
        EmbeddingFile(settings.out, origin, group=group, prune=settings.prune) as file,
        task("Embedding", total and max(total - file.rows, 0), unit=unit) as advance,
    ):
        new = file.missing(names)
        if texts is None:
            embedded = clip.stream_images(new, batch_size=batch_size, workers=workers)
            images = Intact(embedded, settings.on_bad_image, skipped)
            for path, embeds in images:
                file.append(path, as_dtype(embeds, settings.dtype))
                advance()
            left_out = images.left_out
        else:
            for text, embeds in clip.stream_texts(new, group=group, batch_size=batch_size, workers=workers):
                file.append(text, as_dtype(embeds, settings.dtype))
                advance()
    if not file.rows:
        raise DataError("images, none of which can be read", expected="at least one", fix="see above")
    changed = f", {file.files.changed} of files that have changed" if file.files and file.files.changed else ""
    print(f"{settings.out}  {file.rows} rows, {file.added} of them new{changed}")
    if file.files:
        _tell(file.files, pruned=settings.prune)
    if left_out:
        raise typer.Exit(LEFT_OUT)


def _tell(files: FileRows, *, pruned: bool) -> None:
    """Say what became of files that were named before or are no longer there."""
    if files.repeated:
        logger.info("named more than once, and embedded once: %d", files.repeated)
    if files.gone:
        what = "rows dropped" if pruned else "rows kept, which --prune drops,"
        logger.warning("%s of files that are no longer there: %d (first: %s)", what, len(files.gone), files.gone[0])


def _read_texts(source: str) -> Iterator[Any]:
    from edgeclip.bulk.images import open_list
    from edgeclip.bulk.listing import read_texts

    with open_list(source) as file:
        yield from read_texts(file)


def _count_texts(source: str) -> int | None:
    """How many texts there are, where that can be known beforehand."""
    from edgeclip.runtime.stream import FLUSH

    if not Path(source).is_file():
        return None
    return sum(text is not FLUSH for text in _read_texts(source))
