"""Which images a recipe trains on, and which others are calibrated and measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeclip.compress.settings import DistillSettings
from edgeclip.config import PreprocessConfig
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.records import CaptionSet, Record
from edgeclip.data.source import load_data
from edgeclip.errors import DataError
from edgeclip.names import BUILTIN

CALIBRATION = 64
"""Images of the training set on which importance and the sizes of channels are measured."""
MEASURED_SHARE = 0.2


@dataclass(frozen=True)
class Data:
    """The `training` set, some of its pairs decoded for `calibration`, and the pairs that are `measured`, unseen."""

    training: Sequence[Record]
    calibration: Prepared
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
    wanted = settings.samples or samples
    source = load_data(settings.data, samples=wanted, seed=settings.seed, options=settings.data_options, training=True)
    if settings.data == BUILTIN:
        training: Sequence[Record] = source.records
        unseen = load_data(BUILTIN, samples=settings.pairs, seed=settings.seed)
        measured = list(range(settings.pairs))
    else:
        unseen, total = source, len(source)
        pairs = min(settings.pairs, round(MEASURED_SHARE * total))
        if pairs < 2 or (settings.samples or 0) > total - pairs:
            raise DataError(
                f"{settings.data} of {total} images, {pairs} of them to measure on, for --samples {wanted}",
                expected="at least 8 images, and no more --samples than are left",
                fix="use more data, or lower --samples",
            )
        order = np.random.default_rng(settings.seed).permutation(total).tolist()
        measured, rest = order[:pairs], order[pairs:]
        training = [unseen.records[index] for index in rest[:wanted]]
    calibration = list(range(min(CALIBRATION, len(training))))
    parts = [(CaptionSet(unseen.name, training), calibration), (unseen, measured)]
    data = Data(training, *prepare_parts(parts, preprocess, settings))
    if len(data.measured) < 2:
        raise DataError(
            f"{settings.data}, of whose {len(measured)} images to measure on only one can be read",
            expected="at least 2",
            fix=f"see {data.measured.bad_images[0]}",
        )
    return data
