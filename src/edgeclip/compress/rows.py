"""Rows of bundles, measured as they are deployed: torch-free, one image or one text at a time.

Shape legend: N items, E embedding size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeclip.compress.measure import measure
from edgeclip.data.prepare import Prepared
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.table import Embedded, jpeg, make_row, measure_in_turn, rounds
from edgeclip.export.card import one_by_one
from edgeclip.progress import stage
from edgeclip.results import Row
from edgeclip.runtime import load
from edgeclip.shrink.plan import count_parameters


class Contender(NamedTuple):
    """A bundle and what its row is called."""

    name: str
    variant: str
    folder: Path


def bundle_rows(
    contenders: Sequence[Contender], pairs: Prepared, test_crop: NDArray[np.uint8], *, threads: int, repeats: int
) -> list[Row]:
    """Measure bundles on the same pairs: recalls one by one, times in turn.

    Args:
        contenders: the bundles.
        pairs: unseen ones.
        test_crop: (H, W, 3) uint8, the image whose best caption is named.
        threads: for the graphs.
        repeats: timed calls of each kind, bundle and round.
    """
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "query.jpg"
        image.write_bytes(jpeg(pairs.pixels[0]))
        measurements = [
            partial(measure, c.folder, image, pairs.first_captions, threads=threads, repeats=repeats)
            for c in contenders
        ]
        with stage("measuring in fresh processes", rounds(repeats) * len(contenders)) as advance:
            costs = measure_in_turn(measurements, repeats=repeats, advance=advance)
    captions, image_of_caption = pairs.all_captions
    rows = []
    for contender, cost in zip(contenders, costs, strict=True):
        clip = load(contender.folder, threads=threads)
        with stage(f"evaluating {contender.name} {contender.variant}", len(pairs) + len(captions)) as advance:
            embeds = Embedded(
                images=one_by_one(clip.encode_image, pairs.pixels, advance),
                texts=one_by_one(clip.encode_text, captions, advance),
                test_image=clip.encode_image([test_crop])[0],
            )
        rows.append(
            make_row(
                contender.name,
                contender.variant,
                precision=clip.bundle.manifest.precision,
                params=count_parameters(clip.bundle.config),
                size_mb=bytes_on_disk(contender.folder) / 1e6,
                cost=cost,
                embeds=embeds,
                captions=captions,
                image_of_caption=image_of_caption,
            )
        )
    return rows
