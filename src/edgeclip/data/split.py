"""Who sees which pairs: the roles of a data set's records, from the set and a seed alone.

    train      what a student learns from
    calibrate  what ranges, sizes of channels and importance are taken from
    choose     what a choice is made on: layers left in float, int8 or fp32
    measure    what a figure is printed of

The built-in world has a stream of scenes for each. A set in several parts, such as train and test, is calibrated and
chosen on in its training part, and measured in the other. A set in one part is shuffled by the seed: it is measured
from the front of that order, trained on after that, and calibrated and chosen on at the back. The back is only measured
or trained on where as many pairs as that are asked for by number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeclip.data.data_settings import DataOptions
from edgeclip.data.load_data import load_data
from edgeclip.data.records import CaptionSet, Record, TabletopRecords
from edgeclip.errors import DataError
from edgeclip.names import BUILTIN

logger = logging.getLogger(__name__)

Role = Literal["train", "calibrate", "choose", "measure"]
WORLDS: dict[Role, str] = {"train": "train", "calibrate": "calibrate", "choose": "choose", "measure": "evaluation"}
"""The stream of scenes of each role; the built-in teacher was trained on the first."""
CALIBRATE = CHOOSE = 16
"""Pairs: ranges of dynamic int8 are not learned, only where to put the channels' sizes, so that few are enough."""
RESERVED_SHARE = 8
"""Of a set in one part at most one pair in so many is kept for each of the two."""
MEASURED_SHARE = 0.2


@dataclass(frozen=True)
class Part:
    """Some records of a set, by index."""

    captions: CaptionSet
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def records(self) -> Sequence[Record]:
        """The records, in order; those of the whole set are only made when they are asked for."""
        if isinstance(self.indices, range):
            return self.captions.records
        return [self.captions.records[index] for index in self.indices]


def order(total: int, seed: int) -> tuple[int, ...]:
    """The order in which the records of a set are given out."""
    return tuple(np.random.default_rng(seed).permutation(total).tolist())


def back(total: int, calibrate: int = CALIBRATE) -> tuple[int, int]:
    """How many pairs at the back of a set in one part are calibrated on, and before them chosen on."""
    return min(calibrate, max(total // RESERVED_SHARE, 1)), min(CHOOSE, total // RESERVED_SHARE)


def calibrate_and_choose(captions: CaptionSet, seed: int) -> tuple[Part, Part]:
    """The back of a set in one part. A set of less than 8 is chosen on with what it is calibrated on."""
    indices = order(len(captions), seed)
    calibrate, choose = back(len(captions))
    calibrated, chosen = indices[len(indices) - calibrate :], indices[: len(indices) - calibrate][-choose:]
    return Part(captions, calibrated), Part(captions, chosen if choose else calibrated)


def scenes(role: Role, seed: int, count: int) -> Part:
    """Scenes of the built-in world for a role."""
    return Part(CaptionSet(BUILTIN, TabletopRecords(WORLDS[role], seed, count)), range(count))


def to_make_a_bundle(source: str, *, seed: int, options: DataOptions) -> tuple[Part, Part]:
    """The pairs that a bundle is calibrated on and chosen with.

    Raises:
        DataError: the data can't be used, or has fewer than 3 pairs.
    """
    if source == BUILTIN:
        return scenes("calibrate", seed, CALIBRATE), scenes("choose", seed, CHOOSE)
    captions = load_data(source, samples=0, seed=seed, options=options, training=True)
    if len(captions) < 3:
        raise DataError(f"{source} of {len(captions)} pairs", expected="at least 3", fix="use more data")
    return calibrate_and_choose(captions, seed)


def to_measure(
    source: str, *, samples: int | None, seed: int, options: DataOptions, all_scenes: int, at_most: bool = False
) -> Part:
    """The pairs that a model is measured on.

    Args:
        source: as for `load_data`.
        samples: how many, None for all that have no other role.
        seed: which of them.
        options: as for `load_data`.
        all_scenes: what "all" is of the built-in world.
        at_most: take fewer where there are fewer.

    Raises:
        DataError: there are fewer, or the data can't be used.
    """
    if source == BUILTIN:
        return scenes("measure", seed, all_scenes if samples is None else samples)
    captions = load_data(source, samples=0, seed=seed, options=options)
    total = len(captions)
    unused = total if captions.has_training_part else total - sum(back(total))
    if samples is not None and samples > total and not at_most:
        raise DataError(f"`samples` {samples} of {total} images", expected=f"at most {total}", fix="lower `samples`")
    count = unused if samples is None or (at_most and samples > unused) else samples
    if count == unused < total:
        logger.info("%d of %d images are kept to make bundles with, and not measured on", total - unused, total)
    return Part(captions, order(total, seed)[:count])


def to_choose(
    source: str, *, pairs: int, calibrate: int, train: int = 0, seed: int, options: DataOptions
) -> tuple[Part, Part, Part, Part]:
    """The pairs that a choice among bundles is calibrated on, made on, reported on and distilled from.

    No pair is in two of them.

    Args:
        source: as for `load_data`; a folder of pictures without captions too.
        pairs: how many to choose on, and as many others to report on. Where there is less, half of it each, or a fifth
            where some are to train on.
        calibrate: how many to calibrate on; at most an eighth of the set.
        train: how many to train on, at most.
        seed: which of them.
        options: as for `load_data`.

    Raises:
        DataError: the data can't be used, or is too small.
    """
    if source == BUILTIN:
        chosen_on, reported_on = scenes("choose", seed, pairs), scenes("measure", seed, pairs)
        return scenes("calibrate", seed, calibrate), chosen_on, reported_on, scenes("train", seed, train)
    reported_set = load_data(source, samples=0, seed=seed, options=options, without_captions=True)
    total, indices = len(reported_set), order(len(reported_set), seed)
    if reported_set.has_training_part:
        chosen_set = load_data(source, samples=0, seed=seed, options=options, training=True)
        reported, chosen_order = indices[:pairs], order(len(chosen_set), seed)
        calibrated, _ = back(len(chosen_set), calibrate)
    else:
        chosen_set, (calibrated, _) = reported_set, back(total, calibrate)
        reported = indices[: min(pairs, round(MEASURED_SHARE * total) if train else (total - calibrated) // 2)]
        chosen_order = indices[len(reported) :]
    calibrated_on, left = chosen_order[-calibrated:], chosen_order[:-calibrated]
    count = min(pairs, max(round(MEASURED_SHARE * len(chosen_set)), 1)) if train else pairs
    trained, chosen = left[: max(len(left) - count, 0)][:train], left[-count:]
    if min(len(reported), len(chosen)) < 2:
        raise DataError(f"{source} of {total} {reported_set.things}", expected="at least 5", fix="use more data")
    return (
        Part(chosen_set, calibrated_on),
        Part(chosen_set, chosen),
        Part(reported_set, reported),
        Part(chosen_set, trained),
    )


def to_reproduce(
    source: str, *, samples: int, val_fraction: float, seed: int, options: DataOptions
) -> tuple[Part, Part]:
    """The pairs that the paper's students are trained on, and those that every model is measured on.

    Raises:
        DataError: more are wanted than there are, a part would be empty, or the data can't be used.
    """
    captions = load_data(source, samples=samples, seed=seed, options=options)
    total = len(captions)
    if samples > total:
        raise DataError(f"`samples` {samples} of {total} pairs", expected=f"at most {total}", fix=f"use {total}")
    measured = round(samples * val_fraction)
    if not 0 < measured < samples:
        raise DataError(
            f"`samples` {samples} with `val_fraction` {val_fraction:g}",
            expected="at least one pair to train and one to measure on",
            fix="use a `val_fraction` of 0.2 and 10 `samples` or more",
        )
    indices = order(total, seed)
    return Part(captions, indices[measured:samples]), Part(captions, indices[:measured])


def to_distill(
    source: str,
    *,
    samples: int | None,
    at_most: int,
    pairs: int,
    calibrate: int,
    seed: int,
    options: DataOptions,
) -> tuple[Part, Part, Part]:
    """The pairs that a student is trained on, calibrated on and measured on, all of the set's training part.

    Args:
        source: as for `load_data`.
        samples: how many to train on; None for all that are left, but `at_most` so many.
        at_most: see `samples`.
        pairs: how many to measure on; at most a fifth of the set.
        calibrate: how many to calibrate on; at most an eighth of the set.
        seed: which of them.
        options: as for `load_data`.

    Raises:
        DataError: the data can't be used, or is too small.
    """
    if source == BUILTIN:
        wanted = samples or at_most
        return scenes("train", seed, wanted), scenes("calibrate", seed, calibrate), scenes("measure", seed, pairs)
    captions = load_data(source, samples=0, seed=seed, options=options, training=True)
    total = len(captions)
    measured, (calibrated, _) = min(pairs, round(MEASURED_SHARE * total)), back(total, calibrate)
    left = total - measured - calibrated
    if measured < 2 or (samples or 0) > left:
        raise DataError(
            f"{source} of {total} images, {measured} to measure and {calibrated} to calibrate on, for `samples` "
            f"{samples}",
            expected="at least 8 images, and no more `samples` than are left",
            fix=f"use at most {left} `samples`" if measured >= 2 else "use more data",
        )
    indices = order(total, seed)
    trained = indices[measured : total - calibrated][: samples or at_most]
    return Part(captions, trained), Part(captions, indices[total - calibrated :]), Part(captions, indices[:measured])
