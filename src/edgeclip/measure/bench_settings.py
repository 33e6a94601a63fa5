"""What `edgeclip bench` can be told."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edgeclip.settings import Settings, Threads, default_threads


class BenchSettings(Settings, frozen=True, kw_only=True):
    """Which bundle is timed, and beside which other."""

    bundle: Annotated[str, Meta(description="builtin:tabletop, a bundle's folder, or a hub id.")]
    against: Annotated[str | None, Meta(description="Another bundle, timed in turn with it.")] = None
    threads: Threads = default_threads
    repeats: Annotated[int, Meta(ge=10, le=100_000, description="Timed calls of an image and of a text.")] = 100
    seconds: Annotated[float, Meta(ge=0.1, le=3600, description="After so long no more calls are timed.")] = 20.0
