"""`edgeclip mcp`: an index for assistants that speak the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edgeclip.cli.options import Db
from edgeclip.settings import Settings


class McpSettings(Settings, frozen=True, kw_only=True):
    """Which index, and what to embed sentences with."""

    db: Db
    bundle: Annotated[str | None, Meta(description="By default what the index was made with.")] = None


def command(settings: McpSettings) -> None:
    """Let an assistant search an index and look at its pictures, by the Model Context Protocol.

    It speaks on standard input and output, and only reads: search_images, similar_images, get_image, index_status.
    """
    import mcp  # noqa: F401  # first: whose extra brings all that it needs, where another package is missing too

    from edgeclip.serve.mcp_tools import run

    run(settings.db, settings.bundle)
