"""A row of the table: from a model's embeddings, and from what processes of its own have measured of it.

Shape legend: I images, C captions, E embedding size.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeclip.evaluate.latency import percentiles
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.files import printable
from edgeclip.results import Latency, Row, Standard, TestImage

ROUNDS = 3
FEW_REPEATS = 10
"""Fewer timed calls than this are all made in one process."""


class Contender(NamedTuple):
    """A model on disk and what its row says of it; `size_mb` in 10^6 bytes."""

    name: str
    variant: str
    source: Path
    precision: str
    params: int
    size_mb: float


@dataclass(frozen=True)
class Embedded:
    """A model's embeddings of the validation images (I, E), of all captions (C, E), and of the test image (E,)."""

    images: NDArray[np.float32]
    texts: NDArray[np.float32]
    test_image: NDArray[np.float32]


@dataclass(frozen=True)
class Cost:
    """Peak memory in 10^6 bytes, and latency."""

    peak_rss_mb: float
    latency: Latency


def measure_in_turn(
    measurements: Sequence[Callable[[], dict[str, Any]]], *, repeats: int, advance: Callable[[int], None]
) -> list[Cost]:
    """Measure models in fresh processes, in turn (A B C A B C ...), so that the machine's drift meets all alike.

    Args:
        measurements: each measures one model once: {"times": {call: [ms, ...]}, "peak_rss_mb": x}.
        repeats: timed calls of a measurement.
        advance: told after each.
    """
    answers: list[list[dict[str, Any]]] = [[] for _ in measurements]
    for _ in range(rounds(repeats)):
        for measure, answer in zip(measurements, answers, strict=True):
            answer.append(measure())
            advance(1)
    return [
        Cost(
            round(max(run["peak_rss_mb"] for run in runs), 1),
            Latency(
                **{call: percentiles([t for run in runs for t in run["times"][call]]) for call in runs[0]["times"]}
            ),
        )
        for runs in answers
    ]


def rounds(repeats: int) -> int:
    """How often each model is measured in a process of its own."""
    return ROUNDS if repeats >= FEW_REPEATS else 1


def make_row(
    contender: Contender,
    cost: Cost,
    embeds: Embedded,
    captions: Sequence[str],
    image_of_caption: NDArray[np.int64],
) -> Row:
    """Recalls by both protocols and the best caption of the test image, with the figures that are given."""
    first = np.unique(image_of_caption, return_index=True)[1]
    i2t, t2i = retrieval(embeds.images, embeds.texts[first], np.arange(len(first)))
    standard_i2t, standard_t2i = retrieval(embeds.images, embeds.texts, image_of_caption)
    best = int((embeds.texts[first] @ embeds.test_image).argmax())
    return Row(
        name=contender.name,
        variant=contender.variant,
        precision=contender.precision,
        params=contender.params,
        size_mb=round(contender.size_mb, 3),
        peak_rss_mb=cost.peak_rss_mb,
        i2t=i2t,
        t2i=t2i,
        latency_ms=cost.latency,
        caption=captions[first[best]],
        standard=Standard(captions=len(captions), i2t=standard_i2t, t2i=standard_t2i),
    )


def shown_image(crop: NDArray[np.uint8], name: str, captions: Sequence[str]) -> TestImage:
    """An image (H, W, 3) uint8 as the results show it."""
    return TestImage(
        name=printable(name),
        jpeg_base64=base64.b64encode(jpeg(crop)).decode(),
        captions=[*map(printable, captions)],
    )


def jpeg(crop: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
