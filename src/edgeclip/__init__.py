"""edgeclip: CLIP made smaller, faster and as accurate on CPU-only devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeclip.runtime import ClipRuntime

__version__ = "0.1.0"


def load(folder: str | Path, *, threads: int | None = None, cache: str | Path | None = None) -> ClipRuntime:
    """Load a bundle for encoding and classifying; see `edgeclip.runtime.load`."""
    from edgeclip import runtime  # so that `import edgeclip` stays instant

    return runtime.load(folder, threads=threads, cache=cache)
