"""Rows of a table: models measured on the same pairs, each as it is used, with times taken in turn.

Shape legend: H and W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeclip.bundle import read_bundle
from edgeclip.data.prepare import Prepared
from edgeclip.evaluate.encoder import embed_images, embed_texts
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.table import Contender, Cost, Embedded, jpeg, make_row, measure_in_turn, rounds
from edgeclip.image import Crop
from edgeclip.measure.fresh import FreshProcess
from edgeclip.measure.source import load_encoder
from edgeclip.progress import task
from edgeclip.results import Row
from edgeclip.shrink.plan import count_parameters


def bundle_contender(name: str, variant: str, folder: Path) -> Contender:
    """A bundle as a contender."""
    bundle = read_bundle(folder)
    return Contender(
        name=name,
        variant=variant,
        source=folder,
        precision=bundle.manifest.precisions,
        params=count_parameters(bundle.config),
        size_mb=bytes_on_disk(folder) / 1e6,
    )


def measured_rows(
    contenders: Sequence[Contender], pairs: Prepared, test_crop: NDArray[np.uint8], *, threads: int, repeats: int
) -> list[Row]:
    """Measure models on the same pairs.

    Args:
        contenders: the models.
        pairs: unseen ones.
        test_crop: (H, W, 3) uint8, the image whose best caption is named.
        threads: for the models.
        repeats: timed calls of each kind, model and round.
    """
    costs = _costs(contenders, pairs, threads=threads, repeats=repeats)
    captions, image_of_caption = pairs.all_captions
    rows = []
    for contender, cost in zip(contenders, costs, strict=True):
        encoder, _ = load_encoder(contender.source, threads=threads)
        with task(f"evaluating {contender.name} {contender.variant}", len(pairs) + len(captions)) as advance:
            embeds = Embedded(
                images=embed_images(encoder, pairs.crops, advance),
                texts=embed_texts(encoder, captions, advance),
                test_image=encoder.encode_image([Crop(test_crop)])[0],
            )
        rows.append(make_row(contender, cost, embeds, captions, image_of_caption))
    return rows


def _costs(contenders: Sequence[Contender], pairs: Prepared, *, threads: int, repeats: int) -> list[Cost]:
    """Latency and peak memory, each model in a process of its own, in turn."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        image = Path(scratch) / "query.jpg"
        image.write_bytes(jpeg(pairs.pixels[0]))
        with task("measuring in fresh processes", rounds(repeats) * len(contenders)) as advance:
            processes = [
                stack.enter_context(
                    FreshProcess(c.source, image, pairs.first_captions, threads=threads, repeats=repeats)
                )
                for c in contenders
            ]
            return measure_in_turn([process.measure for process in processes], repeats=repeats, advance=advance)
