"""CLIP in PyTorch: two transformers and a shared space, mini-sized and full-sized alike."""

from edgeclip.model.clip import Clip

__all__ = ["Clip"]
