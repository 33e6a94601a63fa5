"""Measured results as a terminal table and as one self-contained HTML file."""

from edgeclip.report.html import write_report

__all__ = ["write_report"]
