"""An index as tools of the Model Context Protocol, for assistants on the same machine. All of them only read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from edgeclip.errors import EdgeclipError
from edgeclip.image.small import small_jpeg
from edgeclip.search.filters import Filters
from edgeclip.search.index import Index
from edgeclip.search.rows import Answer, as_record
from edgeclip.serve.searching import text_terms
from edgeclip.version import __version__

if TYPE_CHECKING:
    from mcp.server import MCPServer

INSTRUCTIONS = "Find photos of this machine by what is in them, in a sentence, and look at them."

Limit = Annotated[int, Field(ge=1, le=100, description="Most results.")]
Day = Annotated[str | None, Field(description="A day, month or year: 2024-07-31, 2024-07 or 2024.")]
Indexed = Annotated[str, Field(description="The path of an indexed picture, as a search gives it.")]


class Tools:
    """What an assistant may ask of an index; it reads the docstrings."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def search_images(
        self,
        query: Annotated[
            str, Field(description="A sentence; with + and - between words: horse + stripes, apple - fruit.")
        ],
        limit: Limit = 10,
        after: Day = None,
        before: Day = None,
        folder: Annotated[str | None, Field(description="Only below this folder.")] = None,
    ) -> dict[str, Any]:
        """Photos that show what a sentence says, the best first; `is_match` tells whether the best is any good."""
        with _told():
            filters = Filters(after=after, before=before, in_=[folder] if folder else [])
            return _found(self._index.search(text_terms(query), k=limit, filters=filters))

    def similar_images(self, path: Indexed, limit: Limit = 10) -> dict[str, Any]:
        """Photos most like an indexed one."""
        with _told():
            return _found(self._index.similar(path, k=limit))

    def get_image(
        self,
        path: Indexed,
        max_px: Annotated[int, Field(ge=32, le=2048, description="Pixels of the longer side.")] = 1024,
    ) -> Any:
        """An indexed photo, made smaller, without its metadata."""
        from mcp.server.mcpserver import Image  # here: it needs what not every system has

        with _told():
            real = os.path.realpath(path)
            self._index.similar(real, k=1)  # refuses what is not indexed
            return Image(data=small_jpeg(real, max_px), format="jpeg")

    def index_status(
        self,
        with_broken: Annotated[bool, Field(description="Name the files that can't be decoded.")] = False,
    ) -> dict[str, Any]:
        """How many photos are indexed, from which folders, and of which dates."""
        with _told():
            status = as_record(self._index.status())
            return status if with_broken else status | {"broken": len(status["broken"])}


def make_server(index: Index) -> MCPServer:
    """A server with the tools; `run` serves it on standard input and output."""
    from mcp.server import MCPServer
    from mcp_types import ToolAnnotations

    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
    server: MCPServer = MCPServer("edgeclip", version=__version__, instructions=INSTRUCTIONS)
    tools = Tools(index)
    server.tool(annotations=reads)(tools.search_images)
    server.tool(annotations=reads)(tools.similar_images)
    server.tool(annotations=reads, structured_output=False)(tools.get_image)
    server.tool(annotations=reads)(tools.index_status)
    return server


@contextmanager
def _told() -> Iterator[None]:
    """Tell a mistake to the assistant in its one line."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except EdgeclipError as error:
        raise ToolError(str(error)) from error


def _found(answer: Answer) -> dict[str, Any]:
    return {"results": [as_record(result) for result in answer.results], "is_match": answer.is_match}


def run(db: Path, bundle: str | None) -> None:
    """Serve an index on standard input and output until they close.

    Raises:
        EdgeclipError: the index or the bundle can't be used.
    """
    with Index.open(db, bundle) as index:
        make_server(index).run("stdio")
