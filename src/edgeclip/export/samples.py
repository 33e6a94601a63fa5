"""The images and captions that a bundle is calibrated on and measured on; never the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeclip.config import Config, PreprocessConfig, check_range, check_run
from edgeclip.data.prepare import OnBadImage, Prepared, prepare
from edgeclip.data.source import DataOptions, load_data
from edgeclip.errors import DataError
from edgeclip.progress import stage

CALIBRATION = 16
"""Ranges of dynamic int8 are not learned from the samples, only where to put the channels' sizes: few are enough."""


class SampleSettings(Config, frozen=True, kw_only=True):
    """Which data, and how many image-caption pairs to measure on."""

    data: str
    samples: int = 200
    seed: int = 0
    workers: int = 2
    image_column: str | None = None
    caption_column: str | None = None
    split: str | None = None
    on_bad_image: OnBadImage = "skip"

    def __post_init__(self) -> None:
        check_range("--samples", self.samples, 2, 2**31)
        check_run(threads=1, workers=self.workers, seed=self.seed)


@dataclass(frozen=True)
class Samples:
    """Decoded pairs: some to calibrate on, others to measure on."""

    name: str
    seed: int
    calibration: Prepared
    measured: Prepared


def load_samples(settings: SampleSettings, preprocess: PreprocessConfig) -> Samples:
    """Choose and decode pairs; of a set with too few, a part is measured and the rest calibrates.

    Raises:
        DataError: the data can't be used, or has fewer than 3 pairs.
    """
    wanted = settings.samples + CALIBRATION
    captions = load_data(
        settings.data,
        samples=wanted,
        seed=settings.seed,
        options=DataOptions(settings.image_column, settings.caption_column, settings.split),
    )
    if len(captions) < 3:
        raise DataError(f"{settings.data} of {len(captions)} pairs", expected="at least 3", fix="use more data")
    order = np.random.default_rng(settings.seed).permutation(len(captions))[:wanted].tolist()
    measuring = min(settings.samples, len(order) - min(CALIBRATION, len(order) // 3))
    with stage("decoding images", len(order)) as advance:
        calibration, measured = (
            prepare(
                captions,
                indices,
                preprocess,
                workers=settings.workers,
                on_bad_image=settings.on_bad_image,
                advance=advance,
            )
            for indices in (order[measuring:], order[:measuring])
        )
    return Samples(captions.name, settings.seed, calibration, measured)
