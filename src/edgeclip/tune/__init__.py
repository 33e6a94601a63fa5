"""A budget met: candidates, what they cost on this device, the gate, and the winner's bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeclip.tune.record import Compressed

__all__ = ["compress"]


def compress(model: str | Path, out: str | Path, **settings: Any) -> Compressed:
    """Write the best bundle within a budget that this device can run, or the one that comes closest.

    Args:
        model: `builtin:tabletop`, a checkpoint's folder or file, or a hub id.
        out: the bundle's folder; an earlier bundle is replaced.
        settings: by name, see `tune.compress_settings.CompressSettings`, such as `data`, `max_image_ms`, `max_drop`.

    Returns:
        What was tried, what was chosen and why, and the proof; `fits` where the budget is met.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used.
    """
    from edgeclip.settings import decode_settings
    from edgeclip.tune.arguments import check_arguments
    from edgeclip.tune.compress_settings import CompressSettings

    decoded, place = decode_settings({"model": str(model), **settings}, CompressSettings), Path(out).resolve()
    check_arguments(decoded, place)

    from edgeclip.tune.run import compress as run  # which takes seconds, for PyTorch

    return run(decoded, place)
