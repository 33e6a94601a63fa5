"""What the cache saves: training with a teacher's stored embeddings against running the teacher at every step.

`python benchmarks/cached_teacher.py` trains each smaller student for a few steps either way, in turn, on the same
images, and prints milliseconds a step as JSON; drawing or decoding the images counts in both.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace as changed
from torch import Tensor

from edgeclip.checkpoint import load_checkpoint
from edgeclip.compress.data import load_split
from edgeclip.compress.settings import DistillSettings
from edgeclip.distill.batches import Batch, stream_batches
from edgeclip.distill.cache import Targets
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.recipe import load_recipe
from edgeclip.distill.stage import Lesson, Pupil, StepLoss
from edgeclip.distill.student import make_student, stages
from edgeclip.distill.teacher import build_cache
from edgeclip.distill.trainer import fit, start_accelerator
from edgeclip.evaluate.environment import environment

StepOf = Callable[[tuple[int, Batch]], tuple[Tensor, dict[str, Tensor]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="builtin:tabletop")
    parser.add_argument("--data", default="builtin:tabletop")
    parser.add_argument("--students", default="half,quarter,eighth", help="commas between them")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {name: compare(name, arguments) for name in arguments.students.split(",")}
    print(json.dumps({"environment": environment(arguments.threads), "students": found}, indent=2))


def compare(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of a step with the cache and with the teacher, and their ratio."""
    teacher, recipe = load_checkpoint(arguments.model), load_recipe(name)
    recipe = changed(recipe, samples=arguments.steps * recipe.train.batch_size, train=changed(recipe.train, epochs=1))
    settings = DistillSettings(model=arguments.model, recipe=name, data=arguments.data, pairs=2, workers=0)
    data = load_split(settings, recipe.samples, teacher.preprocess_config)
    student = make_student(teacher, stages(recipe.shrink)[0], teacher, data.calibration, None)
    with tempfile.TemporaryDirectory() as folder:
        cache = build_cache(
            teacher.model,
            teacher.tokenizer,
            teacher.preprocess_config,
            data.training,
            Path(folder) / "cache",
            augmentations=recipe.cache.augmentations,
            augment=recipe.cache.augment,
            seed=0,
            workers=0,
            on_bad_image=print,
        )
        lesson = Lesson(
            recipe=recipe,
            seed=0,
            records=data.training,
            cache=cache,
            teacher=teacher.model,
            folder=Path(folder),
            workers=0,
            accelerator=start_accelerator(cpu=True),
            on_bad_image=print,
        )
        times: dict[str, list[float]] = {"cached": [], "teacher at every step": []}
        for _ in range(arguments.rounds):
            for way, found in times.items():
                found.append(train(copy.deepcopy(student), lesson, runs_teacher=way != "cached"))
    cached, live = (statistics.median(found) for found in times.values())
    return {
        "cached ms": round(cached),
        "teacher at every step ms": round(live),
        "times faster": round(live / cached, 2),
    }


def train(student: Any, lesson: Lesson, *, runs_teacher: bool) -> float:
    """Milliseconds a step."""
    loss = DistillationLoss(lesson.recipe.loss, student.model.config, lesson.teacher.config)
    from_cache = StepLoss(student.model, loss, lesson)

    def from_teacher(numbered: tuple[int, Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        step, batch = numbered
        with torch.no_grad():
            seen = Targets(lesson.teacher.encode_image(batch.pixel_values), lesson.teacher.encode_text(batch.input_ids))
        return from_cache((step, replace(batch, targets=seen)))

    def batches(wanted: range) -> Any:
        options = {"workers": 0, "steps": wanted, "on_bad_image": print, "cache": lesson.cache}
        stream = stream_batches(lesson.records, lesson.sampler, student.preprocess_config, student.tokenizer, **options)
        return zip(wanted, stream, strict=True)

    loss_of: StepOf = from_teacher if runs_teacher else from_cache
    start = time.perf_counter()
    fit(Pupil(student.model, loss), batches, loss_of, lesson.recipe.train, steps=lesson.steps)
    return (time.perf_counter() - start) / lesson.steps * 1e3


if __name__ == "__main__":
    main()
