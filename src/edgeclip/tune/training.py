"""The training of one student, which is called apart; see `students`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.compress.distill_data import IMPORTANCE_IMAGES, TrainingData
from edgeclip.compress.experiment import train_student
from edgeclip.data.prepare import prepare_parts
from edgeclip.data.split import Part
from edgeclip.distill.recipe import DistillRecipe, load_recipe
from edgeclip.progress import Advance, ignore, observe
from edgeclip.tune.arguments import parts_of
from edgeclip.tune.compress_settings import CompressSettings

VIEW, TRAINING = "the teacher's view", "training"
"""What tasks of `train_student` begin with."""


def student_folder(place: Path, recipe: str, images: int, epochs: int) -> Path:
    """Where a student's states are, and its checkpoint."""
    return place / f"{recipe}-{images}-images-{epochs}-epochs"


class Stopwatch:
    """An observer that adds up the seconds of tasks by the first words of what they are."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def task(self, description: str, total: int | None, unit: str | None) -> Iterator[Advance]:
        """See `progress.Observer.task`."""
        start = time.perf_counter()
        try:
            yield ignore
        finally:
            self.seconds[description.split(",")[0]] += time.perf_counter() - start  # type: ignore[assignment]


def shortened(recipe: DistillRecipe, epochs: int) -> DistillRecipe:
    """A recipe with other epochs."""
    return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, epochs=epochs))


def train(settings: CompressSettings, recipe: str, images: int, epochs: int, place: Path) -> dict[str, float]:
    """Train a student, whose checkpoint is in `student_folder` then, from where an earlier training was killed.

    Args:
        settings: the teacher and the data.
        recipe: by its name.
        images: to train on.
        epochs: how often.
        place: where students and the teacher's view are kept.

    Returns:
        `view_s` and `training_s`: of the teacher's view of the images, and of the training.

    Raises:
        EdgeclipError: see `compress.experiment.train_student`.
    """
    teacher = load_checkpoint(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
    *_, part = parts_of(settings, images)
    pairs = prepare_parts([Part(part.captions, part.indices[:IMPORTANCE_IMAGES])], teacher.preprocess_config, settings)
    data, clock, folder = (
        TrainingData(part.records, pairs[0]),
        Stopwatch(),
        student_folder(place, recipe, images, epochs),
    )
    with observe(clock):
        student, _, _ = train_student(
            settings,
            shortened(load_recipe(recipe), epochs),
            teacher,
            data,
            folder,
            place / f"view-of-{images}",
            resume=True,
        )
    save_checkpoint(student.model, student.preprocess_config, student.tokenizer, folder / "checkpoint")
    return {"view_s": clock.seconds[VIEW], "training_s": clock.seconds[TRAINING]}
