"""Rows beyond the paper: what this project makes of the same teacher and the same pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edgeclip.checkpoint import Checkpoint
from edgeclip.compress.distill_data import Data
from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.compress.experiment import carry_out
from edgeclip.data.split import Part
from edgeclip.distill.recipe import load_recipe
from edgeclip.export.samples import Samples
from edgeclip.files import output_folder
from edgeclip.reproduce.paper_settings import Settings
from edgeclip.results import Row

RECIPE = "qad"


def better_rows(
    settings: Settings,
    teacher: Checkpoint,
    training: Part,
    samples: Samples,
    test_crop: NDArray[np.uint8],
    out: Path,
    *,
    resume: bool,
) -> tuple[list[Row], dict[str, list[float]]]:
    """The teacher's own bundle, its int8 bundle, and that of quantization-aware distillation on the paper's pairs.

    The last is trained for as many steps of as many pairs as the paper's students.

    Args:
        settings: the reproduction's.
        teacher: the checkpoint.
        training: the pairs that the paper's students are distilled with.
        samples: those of the other roles.
        test_crop: (H, W, 3) uint8, the image whose best caption is named.
        out: where the `qad` checkpoint and bundle go, with their cache and state.
        resume: go on from that state.
    """
    recipe = load_recipe(RECIPE)
    made = carry_out(
        DistillSettings(
            model=settings.model,
            recipe=RECIPE,
            data=settings.data,
            seed=settings.seed,
            workers=settings.workers,
            threads=settings.threads,
            repeats=settings.repeats,
        ),
        replace(recipe, train=replace(recipe.train, batch_size=settings.batch_size, epochs=settings.epochs)),
        teacher,
        Data(training.records, samples.calibrate, samples.choose, samples.measure),
        test_crop,
        output_folder(out),
        resume=resume,
    )
    assert made is not None  # noqa: S101 - a reproduction runs in one process
    rows, losses = made
    return rows, {f"{RECIPE}, {name}": values for name, values in losses.items()}
