"""Latency and peak memory of one bundle, in a process of its own: `python -m edgeclip.compress.measure`.

The job comes in on stdin and the answer goes out on stdout, both as JSON. This process never imports torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import edgeclip
from edgeclip.evaluate.footprint import peak_rss_mb, run_fresh
from edgeclip.evaluate.latency import MEASURE_SECONDS, queries, time_calls
from edgeclip.image import crop_uint8


def measure(folder: Path, image: Path, captions: list[str], *, threads: int, repeats: int) -> dict[str, Any]:
    """Measure a bundle in a fresh process; arguments and result as for `reproduce.measure.measure`."""
    job = {"folder": str(folder), "image": str(image), "captions": captions, "threads": threads, "repeats": repeats}
    return run_fresh("edgeclip.compress.measure", job, threads)


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    clip = edgeclip.load(job["folder"], threads=job["threads"])
    image, captions = Path(job["image"]), job["captions"]
    pixels = crop_uint8(image, clip.bundle.preprocess)
    calls = queries(
        lambda: clip.encode_image([pixels]),
        lambda: clip.encode_image([image]),
        lambda: clip.encode_text(captions[:1]),
        candidates=len(captions),
        embedding_size=clip.embedding_size,
    )
    times = time_calls(calls, repeats=job["repeats"], budget_s=MEASURE_SECONDS)
    return {"times": times, "peak_rss_mb": peak_rss_mb()}


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))
