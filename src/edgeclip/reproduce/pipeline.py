"""From settings to results: load, prepare, quantize, distill, measure, explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.compress.experiment import check_places
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.split import Part, to_make_a_bundle, to_reproduce
from edgeclip.distill.batches import check_batch_size
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.table import Contender, shown_image
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import CARD_PAIRS
from edgeclip.export.samples import Samples
from edgeclip.files import printable, scratch_folder
from edgeclip.image import crop_uint8
from edgeclip.measure.rows import bundle_contender, measured_rows
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.progress import task
from edgeclip.reproduce.better import better_rows
from edgeclip.reproduce.paper_distillation import DistillData
from edgeclip.reproduce.paper_settings import Settings
from edgeclip.reproduce.variants import Paper
from edgeclip.results import SCHEMA, DataInfo, Results, TestImage
from edgeclip.settings import shown_settings


def reproduce(settings: Settings, out: Path, *, resume: bool = False) -> Results:
    """Run the paper's experiment, with edgeclip's int8 bundle beside it, and keep the models in `out`/models.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    if settings.with_better:
        check_places(out / "better", settings.model)
    teacher = load_checkpoint(settings.model, vocabulary=settings.vocabulary, model_config=settings.model_config)
    teacher.require_tokenizer()  # before anything takes time
    if settings.normalize != "checkpoint":
        teacher = teacher.with_paper_normalization()
    training, train, samples = _prepare(settings, teacher)
    test_crop, test_image = _test_image(settings, teacher, samples.measure)
    paper = Paper(settings, teacher, teacher_view(teacher, train), out / "state", resume)
    variants, losses, findings = paper.variants()
    sweep = paper.sweep(samples.measure)
    with scratch_folder(out) as scratch:
        the_teacher, *theirs = [variant.save(teacher, out / "models", scratch) for variant in variants]
        contenders = [the_teacher, _edgeclip(settings, teacher, samples, out / "models"), *theirs]
        rows = measured_rows(contenders, samples.measure, test_crop, threads=settings.threads, repeats=settings.repeats)
    if settings.with_better:
        better, curves = better_rows(settings, teacher, training, samples, test_crop, out / "better", resume=resume)
        rows, losses = rows + better, losses | curves
    return Results(
        schema=SCHEMA,
        environment=environment(settings.threads),
        settings=shown_settings(settings),
        data=DataInfo(
            name=printable(settings.data),
            pairs=len(train) + len(samples.measure),
            seed=settings.seed,
            train=len(train),
            validation=len(samples.measure),
            bad_images=train.bad_images + samples.measure.bad_images,
        ),
        rows=rows,
        losses=losses,
        sweep=sweep,
        test_image=test_image,
        findings=findings,
    )


def _prepare(settings: Settings, teacher: Checkpoint) -> tuple[Part, Prepared, Samples]:
    """The pairs that the paper's students are trained on, also decoded, and those of all other roles."""
    options = settings.data_options
    training, measure = to_reproduce(
        settings.data, samples=settings.samples, val_fraction=settings.val_fraction, seed=settings.seed, options=options
    )
    check_batch_size(settings.batch_size, len(training))  # before anything takes time
    others = to_make_a_bundle(settings.data, seed=settings.seed, options=options)
    parts = [training, measure, *others]
    train, measured, calibrate, choose = prepare_parts(parts, teacher.preprocess_config, settings)
    return training, train, Samples(printable(settings.data), settings.seed, calibrate, choose, measured)


def teacher_view(teacher: Checkpoint, train: Prepared) -> DistillData:
    """Run the teacher over the training pairs, once."""
    with task("teacher's view of the pairs", 2 * len(train)) as advance:
        return DistillData(
            pixels=train.pixels,
            input_ids=teacher.tokenizer(train.first_captions, pad_to_longest=True),
            image_embeds=encode_images(teacher.model, train.pixels, teacher.preprocess_config, advance=advance),
            text_embeds=encode_texts(teacher.model, train.first_captions, teacher.tokenizer, advance=advance),
            teacher_scale=teacher.logit_scale,
            preprocess=teacher.preprocess_config,
        )


def _edgeclip(settings: Settings, teacher: Checkpoint, samples: Samples, models: Path) -> Contender:
    """What edgeclip makes of the same teacher, without any training: its int8 bundle."""
    folder = models / "edgeclip-int8"
    export_bundle(teacher, folder, samples.with_measured(CARD_PAIRS), precision="int8", threads=settings.threads)
    return bundle_contender("EDGECLIP", "int8 bundle", folder)


def _test_image(settings: Settings, teacher: Checkpoint, validation: Prepared) -> tuple[NDArray[np.uint8], TestImage]:
    if settings.test_image:
        crop = crop_uint8(settings.test_image, teacher.preprocess_config)
        return crop, shown_image(crop, Path(settings.test_image).name, [])
    return validation.pixels[0], shown_image(validation.pixels[0], validation.names[0], validation.captions[0])
