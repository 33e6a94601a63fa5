"""The images and captions that a bundle is calibrated on and measured on; never the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeclip.config import PreprocessConfig, check_range, check_run
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.settings import DataSettings
from edgeclip.data.source import load_data
from edgeclip.errors import DataError

CALIBRATION = 16
"""Ranges of dynamic int8 are not learned from the samples, only where to put the channels' sizes: few are enough."""


class SampleSettings(DataSettings, frozen=True, kw_only=True):
    """Which data, and how many image-caption pairs to measure on."""

    samples: int = 200
    workers: int = 2

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
    captions = load_data(settings.data, samples=wanted, seed=settings.seed, options=settings.data_options)
    if len(captions) < 3:
        raise DataError(f"{settings.data} of {len(captions)} pairs", expected="at least 3", fix="use more data")
    order = np.random.default_rng(settings.seed).permutation(len(captions))[:wanted].tolist()
    measuring = min(settings.samples, len(order) - min(CALIBRATION, len(order) // 3))
    parts = [(captions, order[measuring:]), (captions, order[:measuring])]
    calibration, measured = prepare_parts(parts, preprocess, settings)
    return Samples(captions.name, settings.seed, calibration, measured)
