"""What each way of distilling keeps: every loss alone, the recipes, and the paper's way, at equal steps and data.

`python benchmarks/distillation.py --out runs/distillation.jsonl` adds a line for each run and leaves out those that are
there, so that it can be stopped, and students be shared among processes. `--report` prints the table of what is there.

Every student sees the same scenes of the training world, each once, with one caption; the teacher's embeddings are
computed once. R@1 is that of int8 on other scenes, the mean of both directions: as the bundle computes it (see
`quantize.deployed`), but for the paper's own int8, which is PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace as changed
from numpy.typing import NDArray
from torch import Tensor

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.compress.distill_data import IMPORTANCE_IMAGES
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import Prepared, prepare
from edgeclip.distill.batches import Sampler
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.losses.mix import LOSSES, LossMix
from edgeclip.distill.losses.outputs import Outputs, outputs_of
from edgeclip.distill.make_student import equalize_student, kept_by_stage, make_student
from edgeclip.distill.recipe import load_recipe
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import fit
from edgeclip.distill.training_stage import StudentWithLoss
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.image import normalize
from edgeclip.model import Clip
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.quantize.paper import load_student
from edgeclip.reproduce.paper_distillation import DistillData, PaperLoss, distill_as_paper
from edgeclip.reproduce.pipeline import teacher_view
from edgeclip.shrink.depth import spread_layers

STEPS = {"teacher": 20, "outlier twin": 20, "half": 80, "quarter": 100, "eighth": 120}
"""Training steps of each student; those of the teacher's size begin at their goal."""
RECIPES = {"teacher": "qad", "outlier twin": "qad", "half": "half", "quarter": "quarter", "eighth": "eighth"}
UNTRAINED, REPORT_INT8, REPORT_FLOAT = "untrained", "report: int8, then distilled", "report: distilled, then int8"
MIX, RECIPE = "the recipe's losses in float", "the recipe"
COMPARED, ALONE = (UNTRAINED, REPORT_INT8, REPORT_FLOAT, RECIPE), (MIX, *LOSSES)
"""What the recipes have to beat; and what they are made of, which is run last."""
BATCH = 50
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t for a 95 % interval of the mean of so many values."""


@dataclass(frozen=True)
class Bench:
    """What all runs share: the teacher, its view of the training scenes, and the scenes that are measured."""

    teacher: Checkpoint
    data: DistillData
    calibration: Prepared
    measured: Prepared
    batch_size: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/distillation.jsonl"))
    parser.add_argument("--students", default=",".join(STEPS), help="commas between them")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, max(T_95) + 1))
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    sizes = {"pairs": arguments.pairs, "batch_size": arguments.batch_size}
    if arguments.report:
        print(markdown([line for line in read(arguments.out) if sizes.items() <= line.items()]))
        return
    torch.set_num_threads(arguments.threads)
    students = arguments.students.split(",")
    bench = prepare_bench(max(STEPS[name] for name in students), arguments.batch_size, arguments.pairs)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    runs = [
        {"student": name, "method": method, "seed": seed, "steps": STEPS[name], **sizes}
        for methods in (COMPARED, ALONE)
        for seed in range(arguments.seeds)
        for name in students
        for method in methods
    ]
    for settings in runs:
        if any(settings.items() <= line.items() for line in read(arguments.out)):
            continue
        start = time.perf_counter()
        line = settings | run(bench, settings["student"], settings["method"], settings["seed"])
        line["seconds"] = round(time.perf_counter() - start)
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """The runs so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def prepare_bench(steps: int, batch_size: int, pairs: int) -> Bench:
    """Draw the scenes, and run the teacher over those of training."""
    teacher = load_checkpoint("builtin:tabletop")
    drawn = load_data("builtin:tabletop", samples=steps * batch_size, seed=0, training=True)
    unseen = load_data("builtin:tabletop", samples=pairs, seed=0)
    training, measured = (
        prepare(captions, range(len(captions)), teacher.preprocess_config, workers=0, on_skip="fail")
        for captions in (drawn, unseen)
    )
    return Bench(teacher, teacher_view(teacher, training), training.first(IMPORTANCE_IMAGES), measured, batch_size)


def run(bench: Bench, name: str, method: str, seed: int) -> dict[str, float]:
    """Make a student, train it, and measure its int8."""
    torch.manual_seed(seed)
    recipe = load_recipe(RECIPES[name])
    base = bench.teacher
    if name == "outlier twin":
        base = replace(base, model=outlier_twin(base.model))
    student = make_student(base, kept_by_stage(recipe.shrink)[0], base, bench.calibration, None)
    steps = STEPS[name]
    train = changed(recipe.train, epochs=1, batch_size=bench.batch_size, chunk_size=None)
    data = first_steps(bench.data, steps * bench.batch_size)
    if method == REPORT_INT8:
        quantized = load_student(student.model, engine="x86")
        distill_as_paper(quantized, data, PaperLoss(alpha=0.3, temperature=1.0), paper_config(train), seed=seed)
        return scores(quantized.eval(), bench, batch_size=1)
    if method == REPORT_FLOAT:
        distill_as_paper(student.model, data, PaperLoss(alpha=0.3, temperature=1.0), paper_config(train), seed=seed)
    elif method == RECIPE:
        equalize_student(student, bench.calibration)
        teach(student.model, bench, data, recipe.loss, train, qad_share=recipe.qad_share, seed=seed)
    elif method != UNTRAINED:
        mix = recipe.loss if method == MIX else loss_alone(method, student.model, base.model)
        teach(student.model, bench, data, mix, train, qad_share=0.0, seed=seed)
    if method != RECIPE:
        equalize_student(student, bench.calibration)
    return scores(DeployedClip(student.model, student.preprocess_config).eval(), bench, batch_size=BATCH)


def first_steps(data: DistillData, count: int) -> DistillData:
    """The first pairs."""
    return replace(
        data,
        pixels=data.pixels[:count],
        input_ids=data.input_ids[:count],
        image_embeds=data.image_embeds[:count],
        text_embeds=data.text_embeds[:count],
    )


def paper_config(train: TrainConfig) -> TrainConfig:
    """The paper's training, at Adam's usual rate."""
    return TrainConfig(epochs=train.epochs, batch_size=train.batch_size, lr=1e-3)


def loss_alone(name: str, student: Clip, teacher: Clip) -> LossMix:
    """One loss with weight 1; hidden states are compared at all of the student's blocks."""
    if name != "hidden_state":
        return LossMix(**{name: 1.0})
    layers = {
        tower: tuple(
            (own, other + 1)
            for own, other in enumerate(
                spread_layers(
                    getattr(teacher.config, tower).num_hidden_layers, getattr(student.config, tower).num_hidden_layers
                ),
                1,
            )
        )
        for tower in ("vision", "text")
    }
    return LossMix(hidden_state=1.0, vision_layers=layers["vision"], text_layers=layers["text"])


def teach(
    student: Clip, bench: Bench, data: DistillData, mix: LossMix, train: TrainConfig, *, qad_share: float, seed: int
) -> None:
    """Train a student in place, the last part of the steps as int8 computes."""
    teacher = bench.teacher.model
    loss = DistillationLoss(mix, student.config, teacher.config)
    pupil, deployed = StudentWithLoss(student, loss), DeployedClip(student, bench.teacher.preprocess_config)
    sampler = Sampler(len(data.pixels), train.batch_size, seed)
    steps = sampler.steps_per_epoch

    def batches(wanted: range) -> Iterator[tuple[int, NDArray[np.int64]]]:
        return ((step, sampler.indices(step)) for step in wanted)

    def loss_of(numbered: tuple[int, NDArray[np.int64]]) -> tuple[Tensor, dict[str, Tensor]]:
        step, indices = numbered
        pixel_values = torch.from_numpy(normalize(data.pixels[indices], data.preprocess))
        input_ids = torch.from_numpy(data.input_ids[indices])
        if step >= round(steps * (1 - qad_share)):
            seen = Outputs(deployed.encode_image(pixel_values), deployed.encode_text(input_ids), student.logit_scale)
        else:
            seen = outputs_of(student, pixel_values, input_ids, tokens=loss.needs_student_tokens)
        if loss.needs_teacher_tokens:
            with torch.no_grad():
                wanted = outputs_of(teacher, pixel_values, input_ids, tokens=True)
        else:
            embeds = (torch.from_numpy(part[indices]) for part in (data.image_embeds, data.text_embeds))
            wanted = Outputs(*embeds, torch.tensor(data.teacher_scale))
        return pupil.loss(seen, wanted, progress=step / steps)

    fit(pupil, batches, loss_of, train, steps=steps)
    student.eval()


def scores(model: Clip | DeployedClip, bench: Bench, *, batch_size: int) -> dict[str, float]:
    """R@1 both ways, one caption an image."""
    pairs, checkpoint = bench.measured, bench.teacher
    images = encode_images(model, pairs.pixels, checkpoint.preprocess_config, batch_size=batch_size)
    texts = encode_texts(model, pairs.first_captions, checkpoint.tokenizer, batch_size=batch_size)
    i2t, t2i = retrieval(images, texts, np.arange(len(pairs)))
    return {"i2t_r1": i2t.r1.value, "t2i_r1": t2i.r1.value, "r1": (i2t.r1.value + t2i.r1.value) / 2}


def markdown(runs: list[dict[str, Any]]) -> str:
    """Mean R@1 of each method and student, with the half width of its 95 % interval over the seeds."""
    runs = [run for run in runs if run["steps"] == STEPS[run["student"]]]
    students = [name for name in STEPS if any(run["student"] == name for run in runs)]
    lines = [
        "| | " + " | ".join(f"{name}, {STEPS[name]} steps" for name in students) + " |",
        "|---" * (len(students) + 1) + "|",
    ]
    for method in COMPARED + ALONE:
        found = [[run["r1"] for run in runs if run["student"] == name and run["method"] == method] for name in students]
        if any(found):
            lines.append(f"| {method} | " + " | ".join(map(interval, found)) + " |")
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """Mean and half width; nothing where there are no runs."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    half = T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
