"""Students of the recipes: from the middle size to smaller ones while they keep the accuracy, else to larger ones.

Of sizes in a row one in two is trained at most, each as long as the time budget leaves for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edgeclip.checkpoint import load_checkpoint
from edgeclip.distill.recipe import DistillRecipe, load_recipe
from edgeclip.progress import task
from edgeclip.tune.apart import called_apart
from edgeclip.tune.candidates import RECIPES, TEACHER, kinds_of
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.record import Candidate, Student
from edgeclip.tune.search import Search
from edgeclip.tune.training import student_folder, train
from edgeclip.tune.trials import TrialError

TRAINING_SHARE = 0.7
"""Of the time budget, for all training."""
PROBE_STEPS = 4
"""Of a training that only shows how long a step takes."""
LATE = 3
"""A training that takes so many times as long as all of it may has failed."""


VIEW_OF_ONE, STEP_OF_ONE = 1.5, 3.0
"""For estimates, times what the teacher takes for an image and a text: its view of a pair; of a pair in a step, the
share of the teacher's parameters that the student has.
"""


class Length(NamedTuple):
    """How much a student is trained."""

    images: int
    epochs: int


@dataclass(frozen=True)
class Students:
    """Trains them in processes, and records it."""

    search: Search
    settings: CompressSettings
    available: int

    def make(self) -> None:
        """Train, and write the drafts of each student that was trained."""
        length = self._length()
        if length is not None:
            bisect(RECIPES, partial(self._keeps, length))

    def _keeps(self, length: Length, recipe: str) -> bool:
        """Whether a student of a recipe, trained now if it was not before, keeps the accuracy in int8."""
        with task(f"distilling {recipe}, {length.images} images, {length.epochs} times", None):
            trained = self._train(recipe, length)
        if trained is None:
            return False
        teacher = self.search.drafts.models[TEACHER]
        folder = student_folder(self._place, recipe, *length)
        student = replace(load_checkpoint(str(folder / "checkpoint")), name=teacher.name)
        if not self.search.drafts.export(recipe, student, None):
            return False
        self.search.drafts.write(recipe, kinds_of(recipe))
        kinds = [kind.name for kind in kinds_of(recipe)]
        made = Student(recipe=recipe, images=length.images, epochs=length.epochs)
        self.search.drafts.students |= dict.fromkeys(kinds, made)
        kind = kinds[0]
        return (
            kind in self.search.drafts.kinds and self.search.loses(Candidate(image=kind, text=kind, threads=1)) is None
        )

    def _length(self) -> Length | None:
        """As long as the time allows, of the two that take longest; None where it allows no step, which is recorded."""
        recipes = longest_recipes()
        costs: dict[str, dict[str, float]] = {}
        seconds = TRAINING_SHARE * self.settings.time_budget_s
        for name, recipe in recipes.items():
            probe = Length(min(PROBE_STEPS * recipe.train.batch_size, self.available), 1)
            found = self._train(name, probe)
            if found is None:
                return None
            steps = probe.images // recipe.train.batch_size
            costs[name] = {"view_s": found["view_s"] / probe.images, "step_s": found["training_s"] / steps}
        length = longest(recipes, costs, seconds, self.available)
        if length is None:

            def refuse() -> dict[str, float]:
                slowest = max(cost["step_s"] for cost in costs.values())
                raise TrialError(f"no time to train: a step takes {slowest:.1f} s, of {seconds:.0f} s for all")

            self.search.drafts.trials.run(f"students in {seconds:.0f} s", refuse)
        return length

    @property
    def _place(self) -> Path:
        return self.search.drafts.trials.folder / "students"

    def _train(self, recipe: str, length: Length) -> Mapping[str, float] | None:
        """How long it took, as it was recorded; None where it failed."""
        self._place.mkdir(exist_ok=True)

        work = partial(
            called_apart,
            train,
            self.settings,
            recipe,
            *length,
            self._place,
            place=self._place,
            cap_mb=self.search.costs.cap_mb,
            timeout_s=LATE * TRAINING_SHARE * self.settings.time_budget_s,
        )
        name = f"student {recipe}, {length.images} images, {length.epochs} epochs"
        return self.search.drafts.trials.run(name, work).found


def longest_recipes() -> dict[str, DistillRecipe]:
    """Of the recipes that one search trains, those that take longest."""
    return {name: load_recipe(name) for name in RECIPES[: len(RECIPES) // 2 + 1]}


def training_expected(settings: CompressSettings, one_s: float, available: int) -> tuple[str, float]:
    """What would be trained, in words, and for how many seconds.

    Args:
        settings: with the time budget.
        one_s: what the teacher takes for an image and a text.
        available: images.
    """
    recipes, costs = longest_recipes(), {}
    for name, recipe in recipes.items():
        fraction = recipe.shrink.fractions[-1] if recipe.shrink else 1.0
        step_s = STEP_OF_ONE * fraction * recipe.train.batch_size * one_s
        costs[name] = {"view_s": VIEW_OF_ONE * one_s, "step_s": step_s}
    seconds = TRAINING_SHARE * settings.time_budget_s
    length = longest(recipes, costs, seconds, available)
    words = f"distil two of {', '.join(RECIPES)}"
    if length is None:
        return f"{words}: not one step, for which the time budget is too short", 0.0
    steps = sum(cost["step_s"] * length.images / recipes[name].train.batch_size for name, cost in costs.items())
    expected_s = length.images * VIEW_OF_ONE * one_s + length.epochs * steps
    return f"{words} on {length.images} images, {length.epochs} times each", expected_s


def bisect(sizes: tuple[str, ...], keeps: Callable[[str], bool]) -> None:
    """Try sizes, the largest first in their row, until it is known which is the smallest that keeps the accuracy."""
    while sizes:
        middle = len(sizes) // 2
        sizes = sizes[middle + 1 :] if keeps(sizes[middle]) else sizes[:middle]


def longest(
    recipes: Mapping[str, DistillRecipe], costs: Mapping[str, Mapping[str, float]], seconds: float, available: int
) -> Length | None:
    """The longest training of all these recipes that the time allows; at most the longest that they ask for.

    Args:
        recipes: by name.
        costs: of each, `view_s` of an image and `step_s`.
        seconds: for all.
        available: images.

    Returns:
        None where the time is too short for an epoch of one step.
    """
    batch = max(recipe.train.batch_size for recipe in recipes.values())
    epochs = max(recipe.train.epochs for recipe in recipes.values())
    wanted = max(recipe.samples for recipe in recipes.values())
    view_s, step_s = max(cost["view_s"] for cost in costs.values()), sum(cost["step_s"] for cost in costs.values())
    images = min(wanted, available, int(seconds / (view_s + epochs * step_s / batch))) // batch * batch
    if images == 0:
        return None
    steps = min(epochs * (wanted // batch), int((seconds - images * view_s) / step_s))
    return Length(images, max(epochs, steps // (images // batch)) if images + batch > available else epochs)
