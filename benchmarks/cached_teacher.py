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
from edgeclip.compress.distill_data import load_split
from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.distill.batches import Batch, BatchStream
from edgeclip.distill.cache import Targets
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.make_student import kept_by_stage, make_student
from edgeclip.distill.recipe import load_recipe
from edgeclip.distill.teacher import build_cache
from edgeclip.distill.trainer import fit, start_accelerator
from edgeclip.distill.training_stage import StageContext, StepLoss, StudentWithLoss
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
    student = make_student(teacher, kept_by_stage(recipe.shrink)[0], teacher, data.calibration, None)
    with tempfile.TemporaryDirectory() as folder:
        cache = build_cache(teacher, data.training, Path(folder) / "cache", recipe.cache, seed=0, on_skip=print)
        context = StageContext(
            recipe=recipe,
            seed=0,
            records=data.training,
            cache=cache,
            teacher=teacher.model,
            folder=Path(folder),
            workers=0,
            accelerator=start_accelerator(cpu=True),
            on_skip=print,
        )
        times: dict[str, list[float]] = {"cached": [], "teacher at every step": []}
        for _ in range(arguments.rounds):
            for way, found in times.items():
                found.append(train(copy.deepcopy(student), context, runs_teacher=way != "cached"))
    cached, live = (statistics.median(found) for found in times.values())
    return {
        "cached ms": round(cached),
        "teacher at every step ms": round(live),
        "times faster": round(live / cached, 2),
    }


def train(student: Any, context: StageContext, *, runs_teacher: bool) -> float:
    """Milliseconds a step."""
    loss = DistillationLoss(context.recipe.loss, student.model.config, context.teacher.config)
    from_cache = StepLoss(student, loss, context)

    def from_teacher(numbered: tuple[int, Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        step, batch = numbered
        with torch.no_grad():
            seen = Targets(
                context.teacher.encode_image(batch.pixel_values), context.teacher.encode_text(batch.input_ids)
            )
        return from_cache((step, replace(batch, targets=seen)))

    options = {"workers": 0, "on_skip": print, "cache": context.cache}
    stream = BatchStream(context.records, context.sampler, student.preprocess_config, student.tokenizer, **options)

    def batches(wanted: range) -> Any:
        return zip(wanted, stream(wanted), strict=True)

    loss_of: StepOf = from_teacher if runs_teacher else from_cache
    start = time.perf_counter()
    fit(StudentWithLoss(student.model, loss), batches, loss_of, context.recipe.train, steps=context.steps)
    return (time.perf_counter() - start) / context.steps * 1e3


if __name__ == "__main__":
    main()
