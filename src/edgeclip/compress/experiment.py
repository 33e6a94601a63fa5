"""From a recipe to a bundle: student, cache, training, export, and rows beside the teacher's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from edgeclip.bundle import check_replaceable
from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeclip.checkpoint.save import CHECKPOINT_FILES
from edgeclip.compress.distill_data import Data, TrainingData, load_split
from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.data.data_settings import DataSettings
from edgeclip.data.prepare import Prepared
from edgeclip.data.split import CALIBRATE
from edgeclip.distill.batches import check_batch_size
from edgeclip.distill.cache import INDEX, CachedTeacher
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.make_student import Kept, equalize_student, fuse_student, kept_by_stage, make_student
from edgeclip.distill.recipe import DistillRecipe, load_recipe
from edgeclip.distill.teacher import build_cache
from edgeclip.distill.trainer import start_accelerator
from edgeclip.distill.training_stage import StageContext, train_stage
from edgeclip.errors import ConfigError, DataError
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.table import Contender, shown_image
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import CARD_PAIRS
from edgeclip.export.samples import Samples
from edgeclip.files import output_folder, printable, scratch_folder
from edgeclip.manifest import MANIFEST
from edgeclip.measure.rows import bundle_contender, measured_rows
from edgeclip.progress import task
from edgeclip.results import REPORT, RESULTS, SCHEMA, DataInfo, Results, Row
from edgeclip.settings import OnBadImage, shown_settings
from edgeclip.shrink.plan import explain

logger = logging.getLogger(__name__)

FEW_PAIRS = 16
"""For the cards of bundles that are not kept."""
STATE_PREFIX = "stage-"
"""What names of states and metrics begin with."""
MakeStudent: TypeAlias = Callable[[Checkpoint, Kept], Checkpoint]
"""Of the student of the stage before, or of the teacher, that of a stage."""


def distill(settings: DistillSettings, out: Path, *, resume: bool = False) -> Results | None:
    """Make `out`/checkpoint and `out`/bundle; the cache and the states of training stay in `out` too.

    A cache goes on where it stopped; training does with `resume`.

    Returns:
        The rows of teacher, post-training int8 and distilled bundle; None in all but the first of several processes.

    Raises:
        EdgeclipError: anything in the recipe, the model or the data that can't be used.
    """
    torch.set_num_threads(settings.threads)
    check_places(out, settings.model)
    recipe = load_recipe(settings.recipe)
    teacher = load_checkpoint(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
    data = load_split(settings, recipe.samples, teacher.preprocess_config)
    made = carry_out(settings, recipe, teacher, data, data.measured.pixels[0], out, resume=resume)
    if made is None:
        return None
    rows, losses = made
    unreadable = CachedTeacher(out / "cache").unreadable
    bad = [
        *(f"{data.training[index].name}: not readable" for index in unreadable),
        *data.calibration.bad_images,
        *data.measured.bad_images,
    ]
    return Results(
        schema=SCHEMA,
        environment=environment(settings.threads),
        settings=_shown(settings, recipe),
        data=DataInfo(
            name=printable(settings.data),
            pairs=len(data.training) + len(data.measured) + len(data.measured.bad_images),
            seed=settings.seed,
            train=len(data.training) - len(unreadable),
            validation=len(data.measured),
            bad_images=[*map(printable, bad)],
        ),
        rows=rows,
        losses=losses,
        test_image=shown_image(data.measured.pixels[0], data.measured.names[0], data.measured.captions[0]),
    )


def check_places(out: Path, model: str) -> None:
    """Refuse to replace what no earlier run of `distill` has made, and the teacher above all.

    Raises:
        ConfigError: naming it.
    """
    folder = out / "checkpoint"
    foreign = sorted({path.name for path in folder.glob("*")} - CHECKPOINT_FILES)
    earlier = (out / "cache" / INDEX).is_file() or any((out / "state").glob(f"{STATE_PREFIX}*"))
    others = [name for name in ("checkpoint", RESULTS, MANIFEST) if (out / name).exists()]
    if Path(model).resolve().is_relative_to(folder.resolve()):
        found = f"{folder}, which is the teacher"
    elif foreign:
        found = f"{folder}, which holds more than a checkpoint: {foreign[0]}"
    elif others and not earlier:
        found = f"{out / others[0]} without the {out / 'cache'} that distilling leaves"
    else:
        check_replaceable(out / "bundle")
        return
    raise ConfigError(found, expected="nothing there, or an earlier run's", fix=f"give another `out`, such as {out}-2")


def carry_out(
    settings: DistillSettings,
    recipe: DistillRecipe,
    teacher: Checkpoint,
    data: Data,
    test_crop: NDArray[np.uint8],
    out: Path,
    *,
    resume: bool,
) -> tuple[list[Row], dict[str, list[float]]] | None:
    """`distill` with a teacher and data that are there, and any image (H, W, 3) uint8 to name the best caption of.

    Returns:
        The rows and the loss curve of each stage; None in all but the first of several processes.
    """
    student, losses, is_main = train_student(settings, recipe, teacher, data, out, out / "cache", resume=resume)
    if not is_main:
        return None
    for name in (RESULTS, REPORT):  # an earlier run's would stand beside another model
        (out / name).unlink(missing_ok=True)
    with scratch_folder(out) as scratch:
        contenders = _export(settings, recipe, teacher, student, data, out, scratch)
        save_checkpoint(student.model, student.preprocess_config, student.tokenizer, out / "checkpoint")
        rows = measured_rows(contenders, data.measured, test_crop, threads=settings.threads, repeats=settings.repeats)
    return rows, losses


def _shown(settings: DistillSettings, recipe: DistillRecipe) -> dict[str, Any]:
    """Settings and recipe for the report."""
    named = {"name": _name(settings), "weights": recipe.loss.weights}
    return shown_settings(settings) | {"recipe": named | msgspec.to_builtins(recipe)}


def _name(settings: DistillSettings) -> str:
    return printable(Path(settings.recipe).stem)


def train_student(
    settings: DataSettings,
    recipe: DistillRecipe,
    teacher: Checkpoint,
    data: TrainingData,
    out: Path,
    cached: Path,
    *,
    resume: bool,
) -> tuple[Checkpoint, dict[str, list[float]], bool]:
    """Train every stage of a recipe.

    Args:
        settings: how images are decoded, and the seed.
        recipe: what is trained and how.
        teacher: the teacher.
        data: what is learned from.
        out: where the states of training are kept.
        cached: where the teacher's view of the training set is kept, which recipes can share.
        resume: go on from the states.

    Returns:
        The last student, the loss curve of each stage, and whether this process is the first.
    """
    accelerator = start_accelerator(recipe.train.mixed_precision)
    check_batch_size(recipe.train.batch_size, len(data.training))  # before anything takes time
    make = partial(_make_student, recipe, teacher, data, _captions_to_keep(recipe, data))
    student = _first_student(recipe, teacher, make, accelerator)  # likewise
    on_skip = _warn_once(settings.on_bad_image)
    with accelerator.main_process_first(), task("the teacher's view", len(data.training)) as advance:
        cache = build_cache(
            teacher,
            data.training,
            cached,
            recipe.cache,
            seed=settings.seed,
            workers=settings.workers,
            on_skip=on_skip if accelerator.is_main_process else lambda reason: None,
            advance=advance,
        )
    context = StageContext(
        recipe=recipe,
        seed=settings.seed,
        records=data.training,
        cache=cache,
        teacher=teacher.model,
        folder=_state_folder(out, resume, accelerator.is_main_process),
        workers=settings.workers,
        accelerator=accelerator,
        on_skip=on_skip,
    )
    student, losses = _train_stages(student, context, make, data.calibration, resume=resume)
    is_main = accelerator.is_main_process
    accelerator.end_training()
    return student, losses, is_main


def _make_student(
    recipe: DistillRecipe,
    teacher: Checkpoint,
    data: TrainingData,
    captions: list[str] | None,
    before: Checkpoint,
    kept: Kept,
) -> Checkpoint:
    student = make_student(before, kept, teacher, data.calibration, captions)
    return fuse_student(student, recipe.fuse, data.calibration)


def _first_student(
    recipe: DistillRecipe, teacher: Checkpoint, make: MakeStudent, accelerator: Accelerator
) -> Checkpoint:
    """The student of the first stage, once it is known that those of all stages can be made and taught."""
    students: list[Checkpoint] = []
    for kept in kept_by_stage(recipe.shrink):
        students.append(make(students[-1] if students else teacher, kept))
        DistillationLoss(recipe.loss, students[-1].model.config, teacher.model.config)
        if kept is not None and accelerator.is_main_process:
            logger.info("%s", explain(teacher.model.config, students[-1].model.config))
    return students[0]


def _train_stages(
    student: Checkpoint, context: StageContext, make: MakeStudent, calibration: Prepared, *, resume: bool
) -> tuple[Checkpoint, dict[str, list[float]]]:
    """Train the first student, and those that are made of it in turn; the last one, and the losses of each stage."""
    losses = {}
    stages = kept_by_stage(context.recipe.shrink)
    for number, kept in enumerate(stages, 1):
        if number > 1:
            student = make(student, kept)
        if context.recipe.qad_share > 0:
            equalize_student(student, calibration)
        name = f"{STATE_PREFIX}{number}"
        is_kept = (context.folder / f"{name}.pt").is_file()
        with task(f"training, stage {number} of {len(stages)}", context.steps) as advance:
            losses[name] = train_stage(student, context, name=name, resume=resume and is_kept, advance=advance)
    return student, losses


def _warn_once(on_bad_image: OnBadImage) -> Callable[[str], None]:
    """What warns of each image that is left out, and only once; it refuses the image where none may be left out."""
    warned: set[str] = set()

    def warn(reason: str) -> None:
        if on_bad_image == "fail":
            raise DataError(reason, expected="an intact image", fix="replace it or use `on_bad_image` skip")
        if reason not in warned:
            logger.warning("left out: %s", reason)
        warned.add(reason)

    return warn


def _state_folder(out: Path, resume: bool, is_main: bool) -> Path:
    """Where states are kept; those of a run that is not gone on with go, whichever stage it came to."""
    folder = output_folder(out / "state")
    earlier = [] if resume or not is_main else list(folder.glob(f"{STATE_PREFIX}*"))
    if earlier:
        logger.warning("%s: an earlier run's states go; `resume` would have gone on from them", folder)
    for file in earlier:
        file.unlink()
    return folder


def _captions_to_keep(recipe: DistillRecipe, data: TrainingData) -> list[str] | None:
    """The captions whose tokens a student keeps; None for all tokens."""
    if recipe.shrink is None or recipe.shrink.kept_vocabulary == "whole":
        return None
    return [caption for record in data.training for caption in record.captions]


def _export(
    settings: DistillSettings,
    recipe: DistillRecipe,
    teacher: Checkpoint,
    student: Checkpoint,
    data: Data,
    out: Path,
    scratch: Path,
) -> list[Contender]:
    """Export what is compared; only the distilled bundle is kept."""
    samples = Samples(
        name=printable(settings.data),
        seed=settings.seed,
        calibrate=data.calibration.first(CALIBRATE),
        choose=data.choose,
        measure=data.measured,
    )
    few = samples.with_measured(FEW_PAIRS)
    whole, quantized, distilled = scratch / "fp32", scratch / "int8", out / "bundle"
    threads, as_trained = settings.threads, recipe.qad_share > 0
    export_bundle(teacher, whole, few, precision="fp32", threads=threads)
    export_bundle(teacher, quantized, few, precision="int8", threads=threads)
    export_bundle(
        student,
        distilled,
        samples.with_measured(CARD_PAIRS),
        precision="int8",
        threads=threads,
        teacher=teacher,
        as_trained=as_trained,
    )
    return [
        bundle_contender("TEACHER", "fp32 bundle", whole),
        bundle_contender("STUDENT", "post-training int8", quantized),
        bundle_contender("DISTILLED", f"{_name(settings)}, int8", distilled),
    ]
