"""The images and captions that a bundle is calibrated on, chosen with and measured on; see `data.split`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeclip.config import PreprocessConfig
from edgeclip.data.prepare import Prepared, prepare_parts
from edgeclip.data.split import to_make_a_bundle, to_measure
from edgeclip.export.export_settings import SampleSettings


@dataclass(frozen=True)
class Samples:
    """Decoded pairs of three roles."""

    name: str
    seed: int
    calibrate: Prepared
    choose: Prepared
    measure: Prepared

    def with_measured(self, count: int) -> Samples:
        """The same, measured on so many pairs at most."""
        return replace(self, measure=self.measure.first(count))


def load_samples(settings: SampleSettings, preprocess: PreprocessConfig) -> Samples:
    """Choose and decode pairs; of a set with too few, all that have no other role are measured on.

    Raises:
        DataError: the data can't be used, or has fewer than 3 pairs.
    """
    options = settings.data_options
    calibrate, choose = to_make_a_bundle(settings.data, seed=settings.seed, options=options)
    measure = to_measure(
        settings.data,
        samples=settings.samples,
        seed=settings.seed,
        options=options,
        all_scenes=settings.samples,
        at_most=True,
    )
    prepared = prepare_parts([calibrate, choose, measure], preprocess, settings)
    return Samples(measure.captions.name, settings.seed, *prepared)
