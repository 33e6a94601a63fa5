"""From a model to ONNX graphs and a bundle, with exact rewrites before anything lossy."""

from edgeclip.export.bundle import export_bundle

__all__ = ["export_bundle"]
