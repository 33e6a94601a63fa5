"""From candidates to contenders: cheap figures of all, and the accuracy of those that could win."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import sqrt

import numpy as np

from edgeclip.errors import DataError
from edgeclip.evaluate.judge import Embeds, Found, Judge, TeachersRanking, check_better_than_chance, own_pairs
from edgeclip.evaluate.paired import Drop, drop
from edgeclip.manifest import Truth
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
    truth: Truth
    logit_scale: float
    figures: dict[Candidate, Figures] = field(default_factory=dict)
    drops: dict[tuple[str, str], Drop | None] = field(default_factory=dict)
    outcomes: dict[Candidate, str] = field(default_factory=dict)

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
        nothing = {"rss_mb": 0.0, "open_ms": 0.0, "size_mb": 0.0}
        rests = {KINDS[kind].engine: kind for kind in reversed(written)}
        none_open = {engine: self.costs.nothing_opened(kind) or nothing for engine, kind in rests.items()}
        for image, text, threads in product(written, written, thread_counts()):
            if not KINDS[image].pairs_with(KINDS[text]):
                continue
            one, other = found.get(("image", image, threads)), found.get(("text", text, threads))
            rest = none_open[KINDS[image].engine]
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
            found = self._embeds(*key)
            self.drops[key] = None if found is None else drop(self._teacher_finds, self._judge(found))
        return self.drops[key]

    def check_teacher(self) -> None:
        """Refuse a gate that would mean nothing.

        Raises:
            DataError: the teacher knows so little of the data that nothing could be lost.
        """
        if isinstance(self._judge, TeachersRanking):
            self._judge.check()
        else:
            check_better_than_chance(self._teacher_finds)

    @property
    def pairs(self) -> int:
        """How many the choice is made on."""
        return len(self._teacher[0])

    @cached_property
    def _judge(self) -> Judge:
        return TeachersRanking(self._teacher, self.logit_scale) if self.truth == "teacher" else own_pairs

    @cached_property
    def _teacher_finds(self) -> Found:
        return self._judge(self._teacher)

    @cached_property
    def _teacher(self) -> Embeds:
        """By the teacher's own float graphs."""
        found = self._embeds(WHOLE, WHOLE)
        if found is None:
            failed = self.costs.trials.failures[0]
            raise DataError(
                f"a teacher that failed on the data ({failed.name}: {failed.failed})",
                expected="its embeddings",
                fix="use a smaller one, or a device with more memory",
            )
        return found

    def _embeds(self, image: str, text: str) -> Embeds | None:
        images, texts = self.costs.embedded("image", image), self.costs.embedded("text", text)
        return None if images is None or texts is None else (np.load(images), np.load(texts))
