"""`edgeclip embed`: embeddings of many images or texts in one file."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from msgspec import Meta

from edgeclip.cli.options import BulkSettings
from edgeclip.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edgeclip.bulk.embedding_file import EmbeddingFile
    from edgeclip.runtime.clip import ClipRuntime

logger = logging.getLogger(__name__)

BATCHES_SORTED_TOGETHER = 64
LEFT_OUT = 3
"""Exit code where images were left out, so that whoever runs it unattended notices."""


class EmbedSettings(BulkSettings, frozen=True, kw_only=True):
    """What to embed, and where to."""

    out: Annotated[Path, Meta(description="FILE.npy, .jsonl or .csv; what has a row there is kept.")]
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

    Run again, it embeds what is new or has changed. Exit code 3: done, but images were left out.
    """
    from edgeclip.runtime import load

    if bool(settings.paths) == (settings.texts is not None):
        raise ConfigError(
            "both `paths` and `texts`, or neither", expected="one of them", fix="give either `paths` or `texts`"
        )
    if settings.prune and settings.texts is not None:
        raise ConfigError("`prune` with `texts`", expected="files, which can be gone", fix="leave out `prune`")
    clip = load(settings.bundle, threads=settings.threads, precision=settings.precision)
    if settings.texts is None:
        _embed_images(clip, settings)
    else:
        _embed_texts(clip, settings, settings.texts)


def _embed_images(clip: ClipRuntime, settings: EmbedSettings) -> None:
    from edgeclip.bulk.images import Intact, count_images, list_images, not_empty, root_of
    from edgeclip.bulk.path_names import path_to_text

    skipped: Counter[str] = Counter()
    paths = not_empty(list_images(settings.paths, skipped), "images", skipped)
    root = path_to_text(str(root_of(settings.paths)))
    with _open(clip, settings, "path", group=settings.batch_size, root=root) as file:
        new = file.missing(paths)
        embedded = clip.stream_images(new, batch_size=settings.batch_size, workers=_workers(settings))
        images = Intact(embedded, settings.on_bad_image, skipped)
        _append(file, images, settings, "images", lambda: count_images(settings.paths))
    if not file.rows:
        raise DataError(
            "images, none of which can be read",
            expected="at least one",
            fix="give other `paths`; the reasons are above",
        )
    _tell(file, settings)
    if images.left_out:
        raise typer.Exit(LEFT_OUT)


def _embed_texts(clip: ClipRuntime, settings: EmbedSettings, source: str) -> None:
    from edgeclip.bulk.images import not_empty

    texts = not_empty(_read_texts(source), "texts")
    batch_size = settings.batch_size
    group = batch_size if batch_size == 1 else batch_size * BATCHES_SORTED_TOGETHER
    with _open(clip, settings, "text", group=group, root=None) as file:
        new, workers = file.missing(texts), _workers(settings)
        embedded = clip.stream_texts(new, group=group, batch_size=batch_size, workers=workers)
        _append(file, embedded, settings, "texts", lambda: _count_texts(source))
    _tell(file, settings)


def _workers(settings: EmbedSettings) -> int:
    from edgeclip.cpu import processors

    return processors() if settings.workers is None else settings.workers


def _open(
    clip: ClipRuntime, settings: EmbedSettings, rows: Literal["path", "text"], *, group: int, root: str | None
) -> EmbeddingFile:
    from edgeclip.bulk.embedding_file import EmbeddingFile
    from edgeclip.bulk.origin import Origin

    origin = Origin(
        fingerprint=clip.bundle.fingerprint,
        rows=rows,
        dtype=settings.dtype,
        embedding_size=clip.embedding_size,
        root=root,
    )
    return EmbeddingFile(settings.out, origin, group=group, prune=settings.prune)


def _append(
    file: EmbeddingFile,
    embedded: Iterable[tuple[str, Any]],
    settings: EmbedSettings,
    unit: str,
    count: Callable[[], int | None],
) -> None:
    from edgeclip.progress import task
    from edgeclip.runtime.embedding_dtype import as_dtype

    is_watched = sys.stderr is not None and sys.stderr.isatty()
    total = count() if is_watched else None  # it walks all folders once more, and only a bar shows it
    with task("Embedding", total and max(total - file.rows, 0), unit=unit) as advance:
        for name, embeds in embedded:
            file.append(name, as_dtype(embeds, settings.dtype))
            advance()


def _tell(file: EmbeddingFile, settings: EmbedSettings) -> None:
    """Say what has come of it, and what became of files that were named before or are no longer there."""
    files = file.files
    changed = f", {files.changed} of files that have changed" if files and files.changed else ""
    print(f"{settings.out}  {file.rows} rows, {file.added} of them new{changed}")
    if files and files.repeated:
        logger.info("named more than once, and embedded once: %d", files.repeated)
    if files and files.gone:
        what = "rows dropped" if settings.prune else "rows kept, which --prune drops,"
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
