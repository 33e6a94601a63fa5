"""`edgeclip search`: pictures of an index by words and by pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Meta

from edgeclip.cli.options import Json
from edgeclip.errors import ConfigError
from edgeclip.search.filters import Filters

if TYPE_CHECKING:
    from edgeclip.search import Result

NO_MATCH = 1
"""Exit code where nothing was found, as grep's."""
Db = Annotated[Path, Meta(description="An index made by edgeclip index.")]


class SearchSettings(Filters, frozen=True, kw_only=True):
    """What to search for, and how to show it."""

    query: Annotated[
        list[str],
        Meta(description='Words or a picture\'s path, with + and - between: horse + stripes, "2:dog" + a.jpg.'),
    ] = []
    db: Db
    not_: Annotated[
        list[str],
        Meta(description="What the pictures shouldn't show; may be given again.", extra={"flags": ("--not",)}),
    ] = []
    k: Annotated[int, Meta(ge=1, le=10_000, description="Results.", extra={"flags": ("-k",)})] = 10
    raw_prompt: Annotated[bool, Meta(description="Embed short nouns as they are, without templates.")] = False
    as_json: Json = False


def command(settings: SearchSettings) -> None:
    """Search an index: the best pictures first, with their cosine. It never indexes. Exit code 1: no match."""
    from edgeclip.search import Index
    from edgeclip.search.queries import parse

    terms = parse(settings.query, settings.not_)
    if not terms:
        raise ConfigError("no `query`", expected="words or a picture", fix='say what to search for, such as "a dog"')
    with Index.open(settings.db) as index:
        answer = index.search(terms, k=settings.k, filters=settings, raw_prompt=settings.raw_prompt)
    for result in answer.results:
        _print(result, settings)
    if not answer.results:
        raise typer.Exit(NO_MATCH)


def _print(result: Result, settings: SearchSettings) -> None:
    import json

    import msgspec

    from edgeclip.bulk.path_names import path_to_text
    from edgeclip.files import printable

    if settings.as_json:
        row = msgspec.to_builtins(result)
        row |= {"path": path_to_text(result.path), "alike": [path_to_text(path) for path in result.alike]}
        print(json.dumps(row))
    else:
        more = f"  ({len(result.alike)} more like it)" if result.alike else ""
        print(f"{result.score:.3f}  {printable(result.path)}{more}")
