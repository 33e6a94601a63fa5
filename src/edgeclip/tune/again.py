"""A compressed bundle measured again, on whatever device: what is other than where it was chosen. No PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from edgeclip.bundle import Bundle
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.measure.bundle_process import BundleProcess
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card
from edgeclip.tune.record import Figures, read_card

DECIDING = ("processor", "cpu_flags", "granted_processors")
"""Of the environment, what decides with the engine's version how fast and how large a bundle is."""
CALLS, WARMUP = 25, 3


def measured_again(bundle: Bundle, threads: int) -> Figures:
    """The figures of a bundle on this device.

    Raises:
        ChildError: the process that measures it has failed.
    """
    with TemporaryDirectory() as scratch:
        crops, texts = Path(scratch) / "crops.npy", Path(scratch) / "texts.json"
        np.save(crops, test_card(bundle.config.vision.image_size)[None])
        texts.write_text(json.dumps([GOLDEN_TEXT]))
        with BundleProcess(bundle.folder, crops, texts, threads=threads) as process:
            opened = process.open()
            times = process.time(CALLS, warmup=WARMUP)
            memory = process.memory()
    return Figures(
        image_ms=round(median(times["image"]), 3),
        text_ms=round(median(times["text"]), 3),
        size_mb=round(bytes_on_disk(bundle.folder) / 1e6, 3),
        rss_mb=round(memory["rss_mb"] or opened["rss_mb"], 1),
        open_ms=round(opened["open_ms"], 1),
    )


def changes(bundle: Bundle) -> list[str]:
    """What is other here than where the bundle was chosen, in sentences.

    Raises:
        BundleError: `edgeclip compress` did not make it.
        ChildError: see `measured_again`.
    """
    card = read_card(bundle.folder)
    here, threads = environment(card.winner.threads), card.winner.threads
    lines = [
        f"{name}: {_words(card.environment.get(name))} where it was chosen, {_words(here.get(name))} here"
        for name in (*DECIDING, bundle.manifest.engine or "onnxruntime")
        if card.environment.get(name) != here.get(name)
    ]
    then, now = card.figures, measured_again(bundle, threads)
    lines += [
        f"{words}: {getattr(then, name):.4g} {unit} where it was chosen, {getattr(now, name):.4g} here"
        for name, words, unit in (
            ("image_ms", "image", "ms"),
            ("text_ms", "text", "ms"),
            ("rss_mb", "memory", "MB"),
            ("open_ms", "opening", "ms"),
        )
    ]
    return lines + [
        f"over its budget here: {name} {value:.4g}, with a limit of {getattr(card.budget, name):g}"
        for name, value in now.over(card.budget).items()
    ]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
