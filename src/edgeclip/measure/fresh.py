"""Latency and peak memory of one model, in a process of its own: `python -m edgeclip.measure.fresh`.

A job comes in as a line of JSON on standard input; then, for each further line, the model is timed once and the answer
goes out as a line of JSON. Between rounds the process sleeps, so that several of them can take turns. It imports
PyTorch only where the model needs it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from edgeclip.evaluate.footprint import peak_rss_mb
from edgeclip.evaluate.latency import MEASURE_SECONDS, queries, time_calls
from edgeclip.image import Crop, crop_uint8
from edgeclip.measure.child import Child, first_line
from edgeclip.measure.source import load_encoder


class FreshProcess(Child):
    """A model in a process that nothing else has used; a context manager that ends it."""

    def __init__(self, source: Path, image: Path, captions: list[str], *, threads: int, repeats: int) -> None:
        """Start it.

        Args:
            source: a bundle, a checkpoint's folder or a student's.
            image: the picture that is encoded and queried with.
            captions: the candidates of a query; the first one is encoded and queried with.
            threads: for the model.
            repeats: timed calls of each kind and round at most.
        """
        job = {"source": str(source), "image": str(image), "captions": captions, "repeats": repeats}
        super().__init__("edgeclip.measure.fresh", job, threads=threads)

    def measure(self) -> dict[str, Any]:
        """Time one round: {"times": {"image" | "text" | "i2t" | "t2i": [ms, ...]}, "peak_rss_mb": x}.

        Raises:
            ChildError: the process failed; its own message is included.
        """
        return self.ask()


def _main() -> None:
    job, answers = first_line()
    encoder, preprocess = load_encoder(job["source"], threads=job["threads"])
    image, captions = Path(job["image"]), job["captions"]
    crop = Crop(crop_uint8(image, preprocess))
    calls = queries(encoder, image, crop, captions)
    for _ in sys.stdin:
        times = time_calls(calls, repeats=job["repeats"], budget_s=MEASURE_SECONDS)
        print(json.dumps({"times": times, "peak_rss_mb": peak_rss_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    _main()
