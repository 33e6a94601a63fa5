"""From a model to ONNX graphs and a bundle, with exact rewrites before anything lossy."""

from edgeclip.export.bundle import export_bundle
from edgeclip.export.immich import export_immich

__all__ = ["export_bundle", "export_immich"]
