"""From settings to results: load, prepare, quantize, distill, evaluate, measure, explain."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgeclip.checkpoint import Loaded, load_checkpoint, save_checkpoint
from edgeclip.compress.experiment import check_places
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.records import Record, sample_split
from edgeclip.data.source import load_data
from edgeclip.distill.batches import Sampler
from edgeclip.distill.report import DistillData, ReportLoss, distill
from edgeclip.distill.trainer import TrainConfig
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.evaluate.table import Cost, Embedded, jpeg, make_row, measure_in_turn, rounds
from edgeclip.files import printable
from edgeclip.image import crop_uint8
from edgeclip.model import Clip
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.progress import stage
from edgeclip.quantize.paper import REPORT_ENGINE, int8_layers, load_student, save_student
from edgeclip.reproduce.better import better_rows
from edgeclip.reproduce.findings import fastest_engine, gradient_reach, time_engines
from edgeclip.reproduce.measure import measure
from edgeclip.reproduce.settings import Settings
from edgeclip.results import (
    SCHEMA,
    DataInfo,
    Findings,
    GradientReach,
    Results,
    Row,
    SweepPoint,
    TestImage,
)

PROJECTIONS = ("vision.projection", "text.projection")


@dataclass(frozen=True)
class Variant:
    """A model of the table. `engine` is None for float models."""

    name: str
    variant: str
    model: Clip
    engine: str | None = None

    @property
    def precision(self) -> str:
        """Of its weights."""
        return "int8" if self.engine else "fp32"


def reproduce(settings: Settings, out: Path, *, resume: bool = False) -> Results:
    """Run the report's experiment and keep the students in `out`/models.

    Raises:
        EdgeclipError: anything in the settings, the model or the data that can't be used.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    if settings.with_better:
        check_places(out / "better", settings.model)
    vocabulary = Path(settings.vocabulary) if settings.vocabulary else None
    loaded = load_checkpoint(settings.model, vocabulary=vocabulary)
    _ = loaded.tokenizer  # which must be there, before anything takes time
    if settings.normalize == "report":
        loaded = loaded.with_report_normalization()
    training, train, validation = _prepare(settings, loaded)
    test_crop, test_image = _test_image(settings, loaded, validation)
    data = teacher_view(loaded, train)
    work = Run(settings, out, loaded, data, resume)
    variants, losses, findings = work.variants()
    sweep = work.sweep(validation)
    embedded = [_embed(variant, loaded, validation, test_crop) for variant in variants]
    rows = _rows(settings, out, loaded, validation, variants, embedded)
    if settings.with_better:
        better, curves = better_rows(
            settings, loaded, training, train, validation, test_crop, out / "better", resume=resume
        )
        rows, losses = rows + better, losses | curves
    return Results(
        schema=SCHEMA,
        environment=environment(settings.threads),
        settings={key: printable(v) if isinstance(v, str) else v for key, v in msgspec.to_builtins(settings).items()},
        data=DataInfo(
            name=printable(settings.data),
            pairs=len(train) + len(validation),
            seed=settings.seed,
            train=len(train),
            validation=len(validation),
            bad_images=train.bad_images + validation.bad_images,
        ),
        rows=rows,
        losses=losses,
        sweep=sweep,
        test_image=test_image,
        findings=findings,
    )


def _prepare(settings: Settings, loaded: Loaded) -> tuple[list[Record], Prepared, Prepared]:
    """The training records, and both parts of the pairs decoded."""
    captions = load_data(settings.data, samples=settings.samples, seed=settings.seed, options=settings.data_options)
    split = sample_split(
        len(captions), samples=settings.samples, val_fraction=settings.val_fraction, seed=settings.seed
    )
    _ = Sampler(len(split.train), settings.batch_size, settings.seed)  # its checks, before anything takes time
    parts = [(captions, split.train), (captions, split.validation)]
    train, validation = prepare_parts(parts, loaded.preprocess_config, settings)
    return [captions.records[index] for index in split.train], train, validation


def teacher_view(loaded: Loaded, train: Prepared) -> DistillData:
    """Run the teacher over the training pairs, once."""
    with stage("teacher's view of the pairs", 2 * len(train)) as advance:
        return DistillData(
            pixels=train.pixels,
            input_ids=loaded.tokenizer(train.first_captions, pad_to_longest=True),
            image_embeds=encode_images(loaded.model, train.pixels, loaded.preprocess_config, advance=advance),
            text_embeds=encode_texts(loaded.model, train.first_captions, loaded.tokenizer, advance=advance),
            teacher_scale=loaded.model.logit_scale.item(),
            preprocess=loaded.preprocess_config,
        )


@dataclass(frozen=True)
class Run:
    """What the making of all variants shares."""

    settings: Settings
    out: Path
    loaded: Loaded
    data: DistillData
    resume: bool

    @property
    def loss(self) -> ReportLoss:
        """The loss with the settings' alpha."""
        return ReportLoss(self.settings.alpha, self.settings.temperature)

    def variants(self) -> tuple[list[Variant], dict[str, list[float]], Findings]:
        """Make every model of the table; also the loss curves, and what explains them."""
        teacher = self.loaded.model
        with stage("timing int8 engines", 1):
            engines = time_engines(teacher)
            fastest = fastest_engine(teacher) if self.settings.engine == "auto" else self.settings.engine
        student = load_student(teacher, engine=REPORT_ENGINE)
        variants = [
            Variant("TEACHER", "fp32", teacher),
            Variant("STUDENT", f"int8, {REPORT_ENGINE}", student, REPORT_ENGINE),
        ]
        if fastest != REPORT_ENGINE:
            quick = load_student(teacher, engine=fastest)
            variants.append(Variant("STUDENT", f"int8, {fastest}", quick, fastest))
        losses: dict[str, list[float]] = {}
        reach: list[GradientReach] = []
        recipes = (
            ("int8 then distilled", REPORT_ENGINE, ()),
            ("int8 then distilled, float projections", fastest, PROJECTIONS),
        )
        for label, engine, float_layers in recipes:
            distilled, untrained = (load_student(teacher, engine=engine, float_layers=float_layers) for _ in range(2))
            losses[label] = self._distil(distilled, untrained, label, reach)
            variants.append(Variant("DISTILLED", f"{label}, {engine}", distilled, engine))
        label = "distilled then int8"
        distilled, untrained = (load_student(teacher, quantized=False) for _ in range(2))
        losses[label] = self._distil(distilled, untrained, label, reach)
        variants.append(Variant("DISTILLED", f"{label}, {fastest}", load_student(distilled, engine=fastest), fastest))
        quantized = int8_layers(student)
        findings = Findings(
            engines=engines,
            gradients=reach,
            int8_layers=len(quantized),
            int8_parameters=sum(layer.in_features * layer.out_features for layer in quantized.values()),
            float_parameters=sum(p.numel() for p in student.parameters()),
        )
        return variants, losses, findings

    def _distil(self, student: Clip, untrained: Clip, label: str, reach: list[GradientReach]) -> list[float]:
        """Train a student and add to `reach` what its gradient reached and how far it moved; returns its losses."""
        before = self._probe(student)
        losses = self._train(student, label, self.loss)
        drift = float((before * self._probe(student)).sum(axis=1).mean())
        reach.append(gradient_reach(label, untrained, self.loaded.model, self.data, self.loss, drift))
        return losses

    def _probe(self, model: Clip) -> NDArray[np.float32]:
        """Embeddings of a few training images, to see how far training moves them."""
        return encode_images(model.eval(), self.data.pixels[:32], self.data.preprocess, batch_size=1)

    def _train(self, student: Clip, label: str, loss: ReportLoss) -> list[float]:
        config: TrainConfig = self.settings.train
        state_file = self.out / "state" / f"{label.replace(', ', '-').replace(' ', '-')}.pt"
        state_file.parent.mkdir(exist_ok=True)
        with stage(f"distilling {label}", config.epochs * (len(self.data.pixels) // config.batch_size)) as advance:
            return distill(
                student,
                self.data,
                loss,
                config,
                seed=self.settings.seed,
                state_file=state_file,
                resume=self.resume and state_file.is_file(),
                on_step=lambda step, value: advance(1, note=f"loss {value:.3f}"),
            )

    def sweep(self, validation: Prepared) -> list[SweepPoint]:
        """The report's search for alpha, on the float student that is then quantized."""
        points = []
        for alpha in self.settings.sweep_alpha:
            student = load_student(self.loaded.model, quantized=False)
            self._train(student, f"alpha {alpha:g}", ReportLoss(alpha, self.settings.temperature))
            variant = Variant("DISTILLED", "sweep", load_student(student.eval()), REPORT_ENGINE)
            images = encode_images(variant.model, validation.pixels, self.loaded.preprocess_config, batch_size=1)
            texts = encode_texts(variant.model, validation.first_captions, self.loaded.tokenizer, batch_size=1)
            i2t, t2i = retrieval(images, texts, np.arange(len(images)))
            points.append(SweepPoint(alpha=alpha, i2t_r1=i2t.r1.value, t2i_r1=t2i.r1.value))
        return points


def _embed(variant: Variant, loaded: Loaded, validation: Prepared, test_crop: NDArray[np.uint8]) -> Embedded:
    """Embed with int8 models one item at a time, as a device does: their activation scales are chosen per call."""
    captions, _ = validation.all_captions
    batch_size = 1 if variant.engine else 32
    with stage(f"evaluating {variant.name} {variant.variant}", len(validation) + len(captions)) as advance:
        config = loaded.preprocess_config
        return Embedded(
            images=encode_images(variant.model, validation.pixels, config, batch_size=batch_size, advance=advance),
            texts=encode_texts(variant.model, captions, loaded.tokenizer, batch_size=batch_size, advance=advance),
            test_image=encode_images(variant.model, test_crop[None], config)[0],
        )


def _test_image(settings: Settings, loaded: Loaded, validation: Prepared) -> tuple[NDArray[np.uint8], TestImage]:
    if settings.test_image:
        crop = crop_uint8(settings.test_image, loaded.preprocess_config)
        name, captions = printable(Path(settings.test_image).name), []
    else:
        crop, name, captions = validation.pixels[0], validation.names[0], list(validation.captions[0])
    return crop, TestImage(name=name, jpeg_base64=base64.b64encode(jpeg(crop)).decode(), captions=captions)


def _rows(
    settings: Settings,
    out: Path,
    loaded: Loaded,
    validation: Prepared,
    variants: list[Variant],
    embedded: list[Embedded],
) -> list[Row]:
    captions, image_of_caption = validation.all_captions
    measured = _measure_all(settings, out, loaded, validation, variants)
    return [
        make_row(
            variant.name,
            variant.variant,
            precision=variant.precision,
            params=_parameters(loaded.model),
            size_mb=size_mb,
            cost=cost,
            embeds=embeds,
            captions=captions,
            image_of_caption=image_of_caption,
        )
        for variant, embeds, (size_mb, cost) in zip(variants, embedded, measured, strict=True)
    ]


def _parameters(model: Clip) -> int:
    """Weights and biases, whatever their precision."""
    return sum(p.numel() for p in model.parameters())


def _measure_all(
    settings: Settings, out: Path, loaded: Loaded, validation: Prepared, variants: list[Variant]
) -> list[tuple[float, Cost]]:
    """Size in MB, peak memory and latency of each variant, measured in fresh processes, in turn."""
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        image = Path(scratch) / "query.jpg"
        image.write_bytes(jpeg(validation.pixels[0]))
        folders = [_save(variant, loaded, out, Path(scratch)) for variant in variants]
        measurements = [
            partial(
                measure,
                folder,
                image,
                validation.first_captions,
                threads=settings.threads,
                repeats=settings.repeats,
            )
            for folder in folders
        ]
        with stage("measuring in fresh processes", rounds(settings.repeats) * len(variants)) as advance:
            costs = measure_in_turn(measurements, repeats=settings.repeats, advance=advance)
        sizes = [bytes_on_disk(folder / "model.safetensors") / 1e6 for folder in folders]
    return list(zip(sizes, costs, strict=True))


def _save(variant: Variant, loaded: Loaded, out: Path, scratch: Path) -> Path:
    """Save a student for good; the teacher, which the user has already, only for the measurement."""
    if variant.engine is None:
        save_checkpoint(variant.model, loaded.preprocess_config, loaded.tokenizer, scratch / "teacher")
        return scratch / "teacher"
    name = f"{variant.name} {variant.variant}".lower().replace(", ", "-").replace(" ", "-")
    folder = out / "models" / name
    save_student(variant.model, loaded.preprocess_config, loaded.tokenizer, folder, variant.engine)
    return folder
