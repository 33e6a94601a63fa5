"""What `edgeclip compress` found, as typed records, and card.json, their file in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeclip.config import Config
from edgeclip.errors import MALFORMED, BundleError
from edgeclip.evaluate.paired import Drop
from edgeclip.evaluate.ratio import Ratio
from edgeclip.files import read_whole
from edgeclip.manifest import COMPRESS_CARD, Truth, measured_on

SCHEMA = 1


class Budget(Config, frozen=True, kw_only=True):
    """The limits; None is no limit. `max_drop` in points of recall, see `evaluate.paired`."""

    max_image_ms: float | None
    max_text_ms: float | None
    max_size_mb: float | None
    max_rss_mb: float | None
    max_open_ms: float | None
    max_drop: float


class Figures(Config, frozen=True, kw_only=True):
    """What a bundle costs on this device: medians of one call, MB of 10^6 bytes, RSS at its peak.

    `is_estimate` where the towers were measured apart and their figures put together.
    """

    image_ms: float
    text_ms: float
    size_mb: float
    rss_mb: float
    open_ms: float
    is_estimate: bool = False

    def over(self, budget: Budget) -> dict[str, float]:
        """The limits that are not kept, and what they would have to be."""
        found = {f"max_{name}": getattr(self, name) for name in FIGURES}
        limits = {name: getattr(budget, name) for name in found}
        return {name: found[name] for name, limit in limits.items() if limit is not None and found[name] > limit}


FIGURES = ("image_ms", "text_ms", "size_mb", "rss_mb", "open_ms")
"""The fields of `Figures` that a budget limits."""


class Candidate(Config, frozen=True, kw_only=True):
    """A kind of graph for each tower, and the threads that run them."""

    image: str
    text: str
    threads: int

    @property
    def name(self) -> str:
        """In words."""
        towers = self.image if self.image == self.text else f"images {self.image}; texts {self.text}"
        return f"{towers}; {self.threads} thread{'' if self.threads == 1 else 's'}"


class Tried(Config, frozen=True, kw_only=True):
    """A candidate, what is known of it, and what became of it; `drop` on the pairs that were chosen on."""

    candidate: Candidate
    figures: Figures
    drop: Drop | None
    outcome: str


class Student(Config, frozen=True, kw_only=True):
    """A smaller model that was distilled from the teacher: by which recipe, on how many images, how often."""

    recipe: str
    images: int
    epochs: int


class Failure(Config, frozen=True, kw_only=True):
    """A trial that gave no figures."""

    trial: str
    reason: str


class Contest(Config, frozen=True, kw_only=True):
    """One that was measured in turn with the winner: how many times slower it is, by the towers' geometric mean."""

    candidate: Candidate
    slower: Ratio


class LayerLoss(Config, frozen=True, kw_only=True):
    """What a layer alone in int8 would change: 1 - mean cosine of the embeddings, and the ranking of what they find.

    The latter is the divergence of the ranking's probabilities from the teacher's, in nats.
    """

    cosine: float
    ranking: float


class Proof(Config, frozen=True, kw_only=True):
    """The winner on pairs that no choice has seen: the loss, and on what it was measured.

    `same_first`, where the teacher's ranking is the truth, is the per cent of queries with the teacher's first answer.
    """

    data: str
    truth: Truth
    chosen_on: int
    reported_on: int
    seed: int
    drop: Drop
    same_first: float | None

    @property
    def measured_on(self) -> str:
        """On what, in words."""
        return measured_on(self.reported_on, self.data, self.truth)


class Compressed(Config, frozen=True, kw_only=True):
    """The content of card.json.

    `relax` is empty where all limits are kept; else it has by limit what the best candidate would need that keeps all
    others, where there is one. `sensitivity` by tower and layer, the most sensitive first.
    `students` by kind of graph: what it is made of, where that is not the teacher itself.
    """

    schema: int
    model: str
    budget: Budget
    winner: Candidate
    figures: Figures
    teacher: Figures | None
    proof: Proof
    over: dict[str, float]
    relax: dict[str, float]
    tried: list[Tried]
    failures: list[Failure]
    contests: list[Contest]
    sensitivity: dict[str, dict[str, LayerLoss]]
    environment: dict[str, Any]
    seconds: float
    trials: int
    students: dict[str, Student] = {}

    @property
    def student(self) -> Student | None:
        """The student that was chosen; None where it is the teacher."""
        return self.students.get(self.winner.image)

    @property
    def fits(self) -> bool:
        """Whether the budget is met."""
        return not self.over


def read_card(folder: Path) -> Compressed:
    """The card of a bundle.

    Raises:
        BundleError: it was not made by `edgeclip compress`, or its card is of another version.
    """
    path = folder / COMPRESS_CARD
    try:
        card = msgspec.json.decode(read_whole(path), type=Compressed)
    except (OSError, *MALFORMED) as error:
        raise BundleError(
            f"{path} ({getattr(error, 'strerror', None) or error})",
            expected="a card of this version, made by `edgeclip compress`",
            fix="make the bundle with edgeclip compress",
        ) from error
    return card
