"""The paper's experiment: teacher, quantized student and distilled student, measured side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeclip.reproduce.paper_settings import Settings

if TYPE_CHECKING:
    from edgeclip.reproduce.pipeline import reproduce

__all__ = ["Settings", "reproduce"]


def __getattr__(name: str) -> Any:
    """Import what reproduces when it is asked for: settings are read without PyTorch."""
    if name == "reproduce":
        from edgeclip.reproduce.pipeline import reproduce

        return reproduce
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
