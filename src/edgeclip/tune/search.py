"""From candidates to contenders: cheap figures of all, and the accuracy of those that could win."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import product
from math import sqrt

import numpy as np

from edgeclip.errors import DataError
from edgeclip.evaluate.paired import Drop, Ranks, drop
from edgeclip.evaluate.retrieval import ranks, recalls
from edgeclip.measure.bundle_process import Tower
from edgeclip.progress import task
from edgeclip.tune.candidates import KINDS, thread_counts
from edgeclip.tune.costs import Costs
from edgeclip.tune.drafts import Drafts
from edgeclip.tune.record import Budget, Candidate, Figures

WHOLE = "fp32"
"""The kind that is the teacher's own graphs."""
NOISE = 1.25
"""A first measurement may be so many times wrong: what is within it of a limit is measured again."""
COULD_WIN = 1.5
"""What is first measured to be so many times slower than the fastest that passes does not take part in the contest."""


@dataclass
class Search:
    """What is known so far."""

    costs: Costs
    drafts: Drafts
    budget: Budget
    deadline: float
    figures: dict[Candidate, Figures] = field(default_factory=dict)
    drops: dict[tuple[str, str], Drop | None] = field(default_factory=dict)
    outcomes: dict[Candidate, str] = field(default_factory=dict)
    _teacher: Ranks | None = None

    def measure_towers(self) -> None:
        """The figures of every candidate whose graphs could be opened, put together from those of its towers."""
        written = self.drafts.kinds
        graphs = [(tower, kind) for kind in written for tower in KINDS[kind].towers]
        found: dict[tuple[Tower, str, int], dict[str, float]] = {}
        with task("opening and timing", len(graphs) * len(thread_counts())) as advance:
            for (tower, kind), threads in product(graphs, thread_counts()):
                if figures := self.costs.tower(tower, kind, threads):
                    found[tower, kind, threads] = figures
                advance(1)
        rest = self.costs.nothing_opened(WHOLE) or {"rss_mb": 0.0, "open_ms": 0.0, "size_mb": 0.0}
        for image, text, threads in product(written, written, thread_counts()):
            if not KINDS[image].pairs_with(KINDS[text]):
                continue
            one, other = found.get(("image", image, threads)), found.get(("text", text, threads))
            if one and other:
                self.figures[Candidate(image=image, text=text, threads=threads)] = Figures(
                    image_ms=round(one["ms"], 3),
                    text_ms=round(other["ms"], 3),
                    size_mb=round(one["size_mb"] + other["size_mb"] + rest["size_mb"], 3),
                    rss_mb=round(one["rss_mb"] + other["rss_mb"] - rest["rss_mb"], 1),
                    open_ms=round(one["open_ms"] + other["open_ms"] - rest["open_ms"], 1),
                    is_estimate=True,
                )

    def by_speed(self) -> list[Candidate]:
        """The fastest first, as far as first measurements tell."""
        return sorted(self.figures, key=lambda c: (self.time(c), self.figures[c].size_mb, c.name))

    def time(self, candidate: Candidate) -> float:
        """The geometric mean of both towers, ms."""
        return sqrt(self.figures[candidate].image_ms * self.figures[candidate].text_ms)

    def contenders(self) -> list[Candidate]:
        """The candidates that may keep the limits, keep the accuracy, and could win; the outcome of all others."""
        taking_part: list[Candidate] = []
        for candidate in self.by_speed():
            if reason := self._exceeds(candidate):
                self.outcomes[candidate] = reason
            elif taking_part and self.time(candidate) > COULD_WIN * self.time(taking_part[0]):
                times = self.time(candidate) / self.time(taking_part[0])
                self.outcomes[candidate] = f"{times:.1f} times slower than {taking_part[0].name}"
            elif self.is_late and taking_part:
                self.outcomes[candidate] = "not tried: the time was up"
            elif reason := self.loses(candidate):
                self.outcomes[candidate] = reason
            else:
                taking_part.append(candidate)
        return taking_part

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.deadline

    def _exceeds(self, candidate: Candidate) -> str | None:
        over = self.figures[candidate].over(self.budget)
        for name, value in over.items():
            limit = getattr(self.budget, name)
            if name == "max_size_mb" or value > NOISE * limit:
                return f"{name} {value:.4g} over {limit:g}"
        return None

    def loses(self, candidate: Candidate) -> str | None:
        """Why a candidate does not keep the accuracy; None where it does."""
        found = self.drop(candidate)
        if found is None:
            return "failed on the pairs to choose on"
        if found.most > self.budget.max_drop:
            return f"may lose {found.most:.2f} points, over {self.budget.max_drop:g}"
        return None

    def drop(self, candidate: Candidate) -> Drop | None:
        """What a candidate loses on the pairs to choose on; None where it failed there."""
        key = (candidate.image, candidate.text)
        if key not in self.drops:
            found = self._ranks(*key)
            self.drops[key] = None if found is None else drop(self.teacher, found)
        return self.drops[key]

    @property
    def teacher(self) -> Ranks:
        """The ranks of the teacher's own float graphs.

        Raises:
            DataError: it is no better than chance, so that nothing could be lost.
        """
        if self._teacher is None:
            found = self._ranks(WHOLE, WHOLE)
            if found is None:
                raise DataError("a teacher that failed on the data", expected="embeddings", fix="see the trials")
            check_better_than_chance(found)
            self._teacher = found
        return self._teacher

    def _ranks(self, image: str, text: str) -> Ranks | None:
        images, texts = self.costs.embedded("image", image), self.costs.embedded("text", text)
        if images is None or texts is None:
            return None
        images_NE = np.load(images)
        return ranks(images_NE, np.load(texts), np.arange(len(images_NE)))


def check_better_than_chance(teacher: Ranks) -> None:
    """Refuse a gate that would mean nothing.

    Raises:
        DataError: in either direction the teacher's R@1 may be that of guessing.
    """
    I = len(teacher[0])
    for direction in teacher:
        found = recalls(direction, np.arange(I)).r1
        if found.low <= 100 / I:
            raise DataError(
                f"a teacher with R@1 {found.value:.1f} on {I} pairs, which guessing reaches too",
                expected="a model that knows this data",
                fix="give `data` of the kind that the model was trained on",
            )
