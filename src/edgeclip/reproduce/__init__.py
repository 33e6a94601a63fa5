"""The report, reproduced end to end: teacher, quantized student and distilled student, measured side by side."""

from edgeclip.reproduce.pipeline import reproduce
from edgeclip.reproduce.settings import Settings

__all__ = ["Settings", "reproduce"]
