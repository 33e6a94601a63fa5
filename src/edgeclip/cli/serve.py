"""`edgeclip serve`: a bundle and an index over HTTP."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edgeclip.serve.serve_settings import ServeSettings

PrintSystemd = Annotated[bool, Meta(description="Print a systemd unit for these options, and serve nothing.")]


def command(settings: ServeSettings, print_systemd: PrintSystemd = False) -> None:
    """Serve embeddings, labels and search over HTTP: to OpenAI's, Cohere's and Jina's clients, Immich and Frigate."""
    if print_systemd:
        from edgeclip.serve.systemd import unit

        print(unit(settings), end="")
        return
    from edgeclip.serve.run import run

    run(settings)
