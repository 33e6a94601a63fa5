"""The paper's own figures, as it printed them (its table of accuracy, latency and size)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """Recalls in per cent, latency in milliseconds, size in MiB.

    The paper counts 2^20 bytes: 151.3 million parameters of 4 bytes are 577.1 MiB.
    """

    name: str
    i2t_r1: float
    i2t_r5: float
    i2t_ms: float
    t2i_r1: float
    t2i_r5: float
    t2i_ms: float
    size_mib: float

    @property
    def size_mb(self) -> float:
        """In 10^6 bytes, the unit of our own rows."""
        return self.size_mib * 2**20 / 1e6


PUBLISHED = (
    PublishedRow("TEACHER", 76.0, 99.0, 667.9, 88.4, 99.7, 657.11, 577.2),
    PublishedRow("STUDENT", 78.7, 98.2, 1671.65, 79.0, 98.5, 1654.01, 224.46),
    PublishedRow("DISTILLED", 51.8, 85.3, 1655.13, 38.5, 71.5, 1652.73, 224.46),
)
