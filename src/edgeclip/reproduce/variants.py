"""The models of the paper's table: its student on its engine and on the fastest, and its distilled students."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclip.checkpoint import Checkpoint, save_checkpoint
from edgeclip.data.prepare import Prepared
from edgeclip.distill.trainer import RunFiles
from edgeclip.evaluate.encoder import embed_images, embed_texts
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.evaluate.table import Contender
from edgeclip.model import Clip
from edgeclip.model.encode import encode_images
from edgeclip.progress import task
from edgeclip.quantize.paper import PAPER_ENGINE, as_student, int8_layers, load_student, save_student
from edgeclip.reproduce.findings import fastest_engine, gradient_reach, time_engines
from edgeclip.reproduce.paper_distillation import DistillData, PaperLoss, distill_as_paper
from edgeclip.reproduce.paper_settings import Settings
from edgeclip.results import Findings, GradientReach, SweepPoint

PROJECTIONS = ("vision.projection", "text.projection")


@dataclass(frozen=True)
class Variant:
    """A model of the table. `engine` is None for float models."""

    name: str
    variant: str
    model: Clip
    engine: str | None = None

    def save(self, teacher: Checkpoint, models: Path, scratch: Path) -> Contender:
        """Save a student in `models`; the teacher, which the user has already, in `scratch` for the measurement."""
        preprocess, tokenizer = teacher.preprocess_config, teacher.tokenizer
        if self.engine is None:
            folder = scratch / "teacher"
            save_checkpoint(self.model, preprocess, tokenizer, folder)
        else:
            folder = models / f"{self.name} {self.variant}".lower().replace(", ", "-").replace(" ", "-")
            save_student(self.model, preprocess, tokenizer, folder, self.engine)
        return Contender(
            name=self.name,
            variant=self.variant,
            source=folder,
            precision="int8" if self.engine else "fp32",
            params=sum(p.numel() for p in teacher.model.parameters()),
            size_mb=bytes_on_disk(folder / "model.safetensors") / 1e6,
        )


@dataclass(frozen=True)
class Paper:
    """What the making of all variants shares; training goes on from states in `state_folder` where it is to resume."""

    settings: Settings
    teacher: Checkpoint
    data: DistillData
    state_folder: Path
    resume: bool

    @property
    def loss(self) -> PaperLoss:
        """The loss with the settings' alpha."""
        return PaperLoss(self.settings.alpha, self.settings.temperature)

    def variants(self) -> tuple[list[Variant], dict[str, list[float]], Findings]:
        """Make every model of the table; also the loss curves, and what explains them."""
        teacher = self.teacher.model
        with task("timing int8 engines", 1):
            engines = time_engines(teacher)
            fastest = fastest_engine(teacher) if self.settings.engine == "auto" else self.settings.engine
        student = load_student(teacher, engine=PAPER_ENGINE)
        variants = [
            Variant("TEACHER", "fp32", teacher),
            Variant("STUDENT", f"int8, {PAPER_ENGINE}", student, PAPER_ENGINE),
        ]
        if fastest != PAPER_ENGINE:
            quick = load_student(teacher, engine=fastest)
            variants.append(Variant("STUDENT", f"int8, {fastest}", quick, fastest))
        losses: dict[str, list[float]] = {}
        reach: list[GradientReach] = []
        recipes = (
            ("int8 then distilled", PAPER_ENGINE, ()),
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
        reach.append(gradient_reach(label, untrained, self.teacher.model, self.data, self.loss, drift))
        return losses

    def _probe(self, model: Clip) -> NDArray[np.float32]:
        """Embeddings of a few training images, to see how far training moves them."""
        return encode_images(model.eval(), self.data.pixels[:32], self.data.preprocess, batch_size=1)

    def _train(self, student: Clip, label: str, loss: PaperLoss) -> list[float]:
        config = self.settings.train
        state = self.state_folder / f"{label.replace(', ', '-').replace(' ', '-')}.pt"
        state.parent.mkdir(exist_ok=True)
        with task(f"distilling {label}", config.epochs * (len(self.data.pixels) // config.batch_size)) as advance:
            return distill_as_paper(
                student,
                self.data,
                loss,
                config,
                seed=self.settings.seed,
                files=RunFiles(state, resume=self.resume and state.is_file()),
                on_step=lambda step, value: advance(1, note=f"loss {value:.3f}"),
            )

    def sweep(self, validation: Prepared) -> list[SweepPoint]:
        """The paper's search for alpha, on the float student that is then quantized."""
        points = []
        for alpha in self.settings.sweep_alpha:
            student = load_student(self.teacher.model, quantized=False)
            self._train(student, f"alpha {alpha:g}", PaperLoss(alpha, self.settings.temperature))
            encoder = as_student(self.teacher, load_student(student.eval()))
            images, texts = embed_images(encoder, validation.crops), embed_texts(encoder, validation.first_captions)
            i2t, t2i = retrieval(images, texts, np.arange(len(images)))
            points.append(SweepPoint(alpha=alpha, i2t_r1=i2t.r1.value, t2i_r1=t2i.r1.value))
        return points
