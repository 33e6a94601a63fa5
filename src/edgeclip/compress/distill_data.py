"""Which images a recipe trains on, and which others are calibrated and measured with; see `data.split`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.config import PreprocessConfig
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.records import Record
from edgeclip.data.split import CALIBRATE, CHOOSE, to_distill
from edgeclip.errors import DataError

IMPORTANCE_IMAGES = 64
"""Images on which importance and the sizes of channels are measured."""


@dataclass(frozen=True)
class TrainingData:
    """The `training` set, and decoded pairs to take importance and the sizes of channels from."""

    training: Sequence[Record]
    calibration: Prepared


@dataclass(frozen=True)
class Data(TrainingData):
    """With the decoded pairs of the other roles, none of which is trained on."""

    choose: Prepared
    measured: Prepared


def load_split(settings: DistillSettings, samples: int, preprocess: PreprocessConfig) -> Data:
    """Set the measured pairs aside: of the built-in world another world's, else a part of what there is to train on.

    So the test split of a data set that has one stays unseen, for `edgeclip evaluate`.

    Args:
        settings: which data.
        samples: images to train on where the settings leave it open.
        preprocess: the teacher's.

    Raises:
        DataError: the data can't be used, or is too small.
    """
    train, calibrate, measure = to_distill(
        settings.data,
        samples=settings.samples,
        at_most=samples,
        pairs=settings.pairs,
        calibrate=IMPORTANCE_IMAGES,
        seed=settings.seed,
        options=settings.data_options,
    )
    calibration, measured = prepare_parts([calibrate, measure], preprocess, settings)
    if len(measured) < 2:
        raise DataError(
            f"{settings.data}, of whose {len(measure)} images to measure on only one can be read",
            expected="at least 2",
            fix=f"see {measured.bad_images[0]}",
        )
    choose = calibration.between(CALIBRATE, CALIBRATE + CHOOSE)
    # A set with no more pairs than a bundle is calibrated on is chosen on with these.
    return Data(train.records, calibration, choose if len(choose) else calibration, measured)
