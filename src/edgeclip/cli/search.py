"""`edgeclip search`: pictures of an index by words and by pictures."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Meta

from edgeclip.cli.options import Json
from edgeclip.errors import ConfigError
from edgeclip.search.filters import Filters

if TYPE_CHECKING:
    from edgeclip.search import Collection, Index, Result

logger = logging.getLogger(__name__)

NO_MATCH = 1
"""Exit code where nothing was found, as grep's."""


class SearchSettings(Filters, frozen=True, kw_only=True):
    """What to search for, and what to do with it."""

    query: Annotated[
        list[str],
        Meta(description='Words or a picture\'s path, with + and - between: horse + stripes, "2:dog" + a.jpg.'),
    ] = []
    db: Annotated[
        str,
        Meta(description="An index made by edgeclip index, or qdrant://HOST:PORT/COLLECTION that it was copied to."),
    ]
    bundle: Annotated[
        str | None, Meta(description="What the index was made with, where that has another path here.")
    ] = None
    not_: Annotated[
        list[str],
        Meta(description="What the pictures shouldn't show; may be given again.", extra={"flags": ("--not",)}),
    ] = []
    k: Annotated[int, Meta(ge=1, le=10_000, description="Results.", extra={"flags": ("-k",)})] = 10
    all_: Annotated[
        bool, Meta(description="Show the nearest even where none is a good match.", extra={"flags": ("--all",)})
    ] = False
    each: Annotated[bool, Meta(description="Show near-duplicates one by one.")] = False
    raw_prompt: Annotated[bool, Meta(description="Embed short nouns as they are, without templates.")] = False
    thumbnails: Annotated[bool, Meta(description="Show the pictures, in a terminal.")] = False
    copy_to: Annotated[Path | None, Meta(description="Copy the pictures into this folder.")] = None
    html: Annotated[Path | None, Meta(description="Write a contact sheet, one HTML file.")] = None
    open_: Annotated[bool, Meta(description="Open the pictures.", extra={"flags": ("--open",)})] = False
    print0: Annotated[
        bool,
        Meta(description="Print paths alone, each ended by NUL, for xargs -0.", extra={"flags": ("-0", "--print0")}),
    ] = False
    as_json: Json = False


def command(settings: SearchSettings) -> None:
    """Search an index: the best pictures first, with their cosine. It never indexes. Exit code 1: no match."""
    from edgeclip.search.queries import parse

    terms = parse(settings.query, settings.not_)
    if not terms:
        raise ConfigError("no `query`", expected="words or a picture", fix='say what to search for, such as "a dog"')
    forms = [name for name in ("print0", "thumbnails", "as_json") if getattr(settings, name)]
    if len(forms) > 1:
        told = " and ".join(f"`{name}`" for name in forms)
        raise ConfigError(f"both {told}", expected="one of them", fix=f"leave out `{forms[0]}`")
    with _opened(settings.db, settings.bundle) as index:
        answer = index.search(
            terms, k=settings.k, filters=settings, collapse=not settings.each, raw_prompt=settings.raw_prompt
        )
    if not answer.results or not (answer.is_match or settings.all_):
        logger.info("no good match%s", "; --all shows the nearest" if answer.results else "")
        raise typer.Exit(NO_MATCH)
    draws = settings.thumbnails and sys.stdout.isatty()
    if settings.thumbnails and not draws:
        logger.info("thumbnails are left out: standard output is no terminal")
    for result in answer.results:
        if draws:
            _draw(result)
        _print(result, settings)
    _use(answer.results, settings)


def _opened(db: str, bundle: str | None) -> Index | Collection:
    from edgeclip.runtime import load
    from edgeclip.search import Index
    from edgeclip.search.database import is_collection

    if is_collection(db):
        from edgeclip.search import Collection  # extra `scale`, and a second to import

        return Collection.open(db, bundle)
    return Index.open(db) if bundle is None else Index(Path(db), load(bundle, threads=1))  # which makes none


def _draw(result: Result) -> None:
    from edgeclip.cli.terminal_pictures import SIDE, drawn, protocol
    from edgeclip.errors import ImageError
    from edgeclip.image.small import open_small

    try:
        print(drawn(open_small(result.path, SIDE), protocol(os.environ)), end="")
    except ImageError as error:
        logger.info("no thumbnail: %s", error.got)


def _print(result: Result, settings: SearchSettings) -> None:
    from edgeclip.cli.console import print_json_line
    from edgeclip.files import printable
    from edgeclip.search.rows import as_record

    if settings.as_json:
        print_json_line(as_record(result))
    elif settings.print0:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(result.path) + b"\0")
        sys.stdout.buffer.flush()
    else:
        more = f"  ({len(result.alike)} more like it)" if result.alike else ""
        print(f"{result.score:.3f}  {printable(result.path)}{more}")


def _use(results: Sequence[Result], settings: SearchSettings) -> None:
    from edgeclip.search import contact_sheet, handing_on

    paths = [result.path for result in results]
    if settings.html is not None:
        contact_sheet.write(settings.html, " ".join(settings.query), results)
    if settings.copy_to is not None:
        handing_on.copy(paths, settings.copy_to)
    if settings.open_:
        handing_on.open_each(paths)
