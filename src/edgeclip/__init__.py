"""edgeclip: CLIP made smaller, faster and as accurate on CPU-only devices."""

__version__ = "0.1.0"
