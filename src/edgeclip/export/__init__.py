"""From a model to ONNX graphs and a bundle, with exact rewrites before anything lossy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeclip.export.immich import export_immich
    from edgeclip.export.make_bundle import export_bundle

__all__ = ["export_bundle", "export_immich"]


def __getattr__(name: str) -> Any:
    """Import what makes bundles when it is asked for: settings are read without PyTorch."""
    if name == "export_bundle":
        from edgeclip.export.make_bundle import export_bundle

        return export_bundle
    if name == "export_immich":
        from edgeclip.export.immich import export_immich

        return export_immich
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
