"""What a bundle costs on this device, in processes of its own; and beside another one, in turn."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgeclip.bundle import read_bundle
from edgeclip.config import Config
from edgeclip.cpu import granted_processors
from edgeclip.evaluate.energy import joules, joules_since
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.ratio import Ratio, ratio
from edgeclip.measure.bench_settings import BenchSettings
from edgeclip.measure.bundle_process import TOWERS, BundleProcess
from edgeclip.progress import task
from edgeclip.runtime import load
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card

SCHEMA = 1
ROUNDS, ROUND_CALLS = 24, 5
OPENINGS = 3
SHARE_OF_SCALING = 4
"""Of the calls and the time, one in so many for each number of threads."""


class Times(Config, frozen=True, kw_only=True):
    """Milliseconds of one call."""

    p50: float
    p95: float
    p99: float
    calls: list[float]


class Measured(Config, frozen=True, kw_only=True):
    """One bundle. Sizes in 10^6 bytes; `open_ms` and `cold_ms` are medians of processes that each opened it anew.

    `open_ms` is from `load` to the first image and text, without the graph cache; `cold_ms` from the start of a
    process. `images_per_s` is of as many workers as there are processors, with a thread each. `scaling` is the median
    of an image by threads. `image_joules` is all that the processor used meanwhile, None where that can't be read.
    """

    bundle: str
    precision: str
    size_mb: float
    image_ms: Times
    text_ms: Times
    open_ms: float
    cold_ms: float
    rss_mb: float
    pss_mb: float | None
    images_per_s: float
    scaling: dict[str, float]
    image_joules: float | None


class Bench(Config, frozen=True, kw_only=True):
    """What `edgeclip bench` gives: one bundle, or two with how many times slower the first is than the other."""

    schema: int
    bundles: list[Measured]
    slower: dict[str, Ratio]
    environment: dict[str, Any]


def bench(settings: BenchSettings) -> Bench:
    """Measure a bundle, and another one beside it.

    Raises:
        EdgeclipError: one of them is no bundle, or can't be downloaded.
        ChildError: a process ended without an answer.
    """
    sources = [settings.bundle, *([settings.against] if settings.against else [])]
    folders = [load(source, cache=None).own_bundle.folder for source in sources]
    with TemporaryDirectory() as scratch:
        measuring = [_Measuring(settings, folder, Path(scratch)) for folder in folders]
        measured = [one.measure(source) for one, source in zip(measuring, sources, strict=True)]
        slower = _in_turn(*measuring) if len(measuring) == 2 else {}
    return Bench(schema=SCHEMA, bundles=measured, slower=slower, environment=environment(settings.threads))


class _Measuring:
    """One bundle and what it is timed with: the test card, and the text of the golden embeddings."""

    def __init__(self, settings: BenchSettings, folder: Path, scratch: Path) -> None:
        self.settings, self.folder = settings, folder
        size = read_bundle(folder).config.vision.image_size
        self.crops, self.texts = scratch / f"crops-{size}.npy", scratch / "texts.json"
        np.save(self.crops, test_card(size)[None])
        self.texts.write_text(json.dumps([GOLDEN_TEXT]))

    def process(self, threads: int) -> BundleProcess:
        return BundleProcess(self.folder, self.crops, self.texts, threads=threads)

    def measure(self, source: str) -> Measured:
        bundle, threads = read_bundle(self.folder), self.settings.threads
        processors = granted_processors()
        counts = sorted({1, threads, processors})
        with task(f"measuring {source}", OPENINGS + len(counts) + 2) as advance:
            openings = []
            for _ in range(OPENINGS):
                with self.process(threads) as process:
                    openings.append(process.open())
                advance(1)
            with self.process(threads) as process:
                process.open()
                before = joules()
                times = process.time(self.settings.repeats, warmup=3, seconds=self.settings.seconds)
                used = None if before is None else joules_since(before)
                memory = process.memory()
            advance(1)
            with self.process(1) as process:
                images_per_s = process.throughput(processors)["images"]
            advance(1)
            scaling = {}
            for count in counts:
                scaling[str(count)] = round(self._image_ms(count), 3)
                advance(1)
        share = sum(times["image"]) / (sum(times["image"]) + sum(times["text"]))
        return Measured(
            bundle=source,
            precision=bundle.manifest.precisions,
            size_mb=round(bytes_on_disk(self.folder) / 1e6, 3),
            image_ms=_times(times["image"]),
            text_ms=_times(times["text"]),
            open_ms=round(median(opening["open_ms"] for opening in openings), 1),
            cold_ms=round(median(opening["cold_ms"] for opening in openings), 1),
            rss_mb=round(memory["rss_mb"] or 0, 1),
            pss_mb=None if memory["pss_mb"] is None else round(memory["pss_mb"], 1),
            images_per_s=round(images_per_s, 2),
            scaling=scaling,
            image_joules=None if used is None else round(used * share / len(times["image"]), 5),
        )

    def _image_ms(self, threads: int) -> float:
        settings = self.settings
        with self.process(threads) as process:
            calls = max(settings.repeats // SHARE_OF_SCALING, 5)
            return median(process.time(calls, warmup=3, seconds=settings.seconds / SHARE_OF_SCALING)["image"])


def _times(calls: list[float]) -> Times:
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(calls, (50, 95, 99)))
    return Times(p50=p50, p95=p95, p99=p99, calls=[round(call, 3) for call in calls])


def _in_turn(one: _Measuring, other: _Measuring) -> dict[str, Ratio]:
    """How many times slower the first is, by tower, from rounds in which both are timed in turn."""
    threads = one.settings.threads
    found: dict[str, tuple[list[float], list[float]]] = {tower: ([], []) for tower in TOWERS}
    with one.process(threads) as first, other.process(threads) as second, task("in turn", ROUNDS) as advance:
        for number in range(ROUNDS):
            order = [(0, first), (1, second)]
            for index, process in order if number % 2 else order[::-1]:
                for tower, calls in process.time(ROUND_CALLS).items():
                    found[tower][index].append(median(calls))
            advance(1)
    return {tower: ratio(*both) for tower, both in found.items()}
