"""What `edgeclip serve` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.settings import ForeignPrecision, LogitBias, LogitScale, Settings, Threads, default_threads


class ServeSettings(Settings, frozen=True, kw_only=True):
    """What is served, to whom, and how much of it at once."""

    bundle: Annotated[str, Meta(description="Made by edgeclip export; builtin:tabletop, a folder, or a hub id.")]
    db: Annotated[
        Path | None, Meta(description="An index made by edgeclip index: gives /v1/search and the web page.")
    ] = None
    host: Annotated[str, Meta(description="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port; 0 takes a free one. Immich expects 3003.")] = 8000
    token_file: Annotated[
        Path | None, Meta(description="A file with the token that clients must send; else EDGECLIP_TOKEN's, if set.")
    ] = None
    threads: Threads = default_threads
    precision: ForeignPrecision = None
    logit_scale: LogitScale = None
    logit_bias: LogitBias = None
    queue: Annotated[
        int, Meta(ge=1, le=10_000, description="Requests at work or waiting; more are answered with 429.")
    ] = 64
    max_body_mb: Annotated[int, Meta(ge=1, le=1000, description="Longest body of a request, in MB.")] = 64
    max_inputs: Annotated[int, Meta(ge=1, le=100_000, description="Texts and images of one request.")] = 2048
    timeout: Annotated[int, Meta(ge=1, le=86_400, description="Seconds a request may take, waiting included.")] = 120
    idle_unload: Annotated[
        int, Meta(ge=0, le=10**6, description="Seconds without work after which the graphs' memory is given back.")
    ] = 0
    immich_name: Annotated[
        str | None, Meta(description="The model name of Immich's list that this bundle answers for.")
    ] = None
    immich_upstream: Annotated[
        str | None, Meta(description="URL of Immich's own machine learning, for faces and text recognition.")
    ] = None
