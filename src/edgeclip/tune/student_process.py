"""A student, trained in a process of its own: `python -m edgeclip.tune.student_process`.

It goes on where an earlier one was killed, and answers how long each part took.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.compress.distill_data import IMPORTANCE_IMAGES, TrainingData
from edgeclip.compress.experiment import train_student
from edgeclip.data.prepare import prepare_parts
from edgeclip.data.split import Part
from edgeclip.distill.recipe import DistillRecipe, load_recipe
from edgeclip.errors import EdgeclipError
from edgeclip.measure.child import Child, first_line
from edgeclip.progress import Advance, ignore, observe
from edgeclip.tune.arguments import parts_of
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.trials import TrialError

VIEW, TRAINING = "the teacher's view", "training"
"""What tasks of `train_student` begin with."""


def train_apart(
    settings: CompressSettings,
    recipe: str,
    images: int,
    epochs: int,
    place: Path,
    *,
    threads: int,
    cap_mb: float | None,
    timeout_s: float,
) -> dict[str, float]:
    """Train a student, whose checkpoint is in `student_folder` then.

    Args:
        settings: the teacher and the data.
        recipe: by its name.
        images: to train on.
        epochs: how often.
        place: where students and the teacher's view are kept.
        threads: of the process.
        cap_mb: memory that it may take, MB of 10^6 bytes.
        timeout_s: after so long it has failed.

    Returns:
        `view_s` and `training_s`: of the teacher's view of the images, and of the training.

    Raises:
        ChildError: the process failed.
        TrialError: the training did.
    """
    told = {"settings": msgspec.to_builtins(settings), "recipe": recipe, "images": images, "epochs": epochs}
    job = told | {"place": str(place)}
    with Child("edgeclip.tune.student_process", job, threads=threads, cap_mb=cap_mb, timeout_s=timeout_s) as process:
        answer = process.ask()
    if "failed" in answer:
        raise TrialError(answer["failed"])
    return answer


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


def _main() -> None:
    job, answers = first_line()
    torch.set_num_threads(job["threads"])
    try:
        answer: dict[str, Any] = _train(
            msgspec.convert(job["settings"], CompressSettings),
            shortened(load_recipe(job["recipe"]), job["epochs"]),
            job["images"],
            Path(job["place"]),
            student_folder(Path(job["place"]), job["recipe"], job["images"], job["epochs"]),
        )
    except EdgeclipError as error:
        answer = {"failed": str(error)}
    print(json.dumps(answer), file=answers, flush=True)


def shortened(recipe: DistillRecipe, epochs: int) -> DistillRecipe:
    """A recipe with other epochs."""
    return msgspec.structs.replace(recipe, train=msgspec.structs.replace(recipe.train, epochs=epochs))


def _train(
    settings: CompressSettings, recipe: DistillRecipe, images: int, place: Path, folder: Path
) -> dict[str, float]:
    teacher = load_checkpoint(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
    *_, train = parts_of(settings, images)
    pairs = prepare_parts(
        [Part(train.captions, train.indices[:IMPORTANCE_IMAGES])], teacher.preprocess_config, settings
    )
    data, clock = TrainingData(train.records, pairs[0]), Stopwatch()
    with observe(clock):
        student, _, _ = train_student(settings, recipe, teacher, data, folder, place / f"view-of-{images}", resume=True)
    save_checkpoint(student.model, student.preprocess_config, student.tokenizer, folder / "checkpoint")
    return {"view_s": clock.seconds[VIEW], "training_s": clock.seconds[TRAINING]}


if __name__ == "__main__":
    _main()
