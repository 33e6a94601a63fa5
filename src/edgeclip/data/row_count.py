"""What became of the rows of a data set: how many were read, and why some of them are not among its pairs."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass
class RowCount:
    """The rows of one source, counted as they are read.

    Attributes:
        source: what they are read from.
        read: how many there are.
        left_out: how many of them are no pairs, by reason.
        first: where the first one of each reason is.
    """

    source: str
    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """How many rows are pairs."""
        return self.read - self.left_out.total()

    def leave_out(self, reason: str, where: str) -> None:
        """Count a row that is no pair; `reason` goes on from "a row ..."."""
        self.left_out[reason] += 1
        self.first.setdefault(reason, where)

    def __str__(self) -> str:
        reasons = [f"{count} {reason} (first: {self.first[reason]})" for reason, count in self.left_out.items()]
        told = f"; left out: {', '.join(reasons)}" if reasons else ""
        return f"{self.source}: {self.read} rows read, {self.kept} kept{told}"

    def tell(self) -> None:
        """Log it, as a warning where a row was left out."""
        logger.log(logging.WARNING if self.left_out else logging.INFO, "%s", self)
