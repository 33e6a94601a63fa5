"""Latency and peak memory of one model, in a process of its own: `python -m edgeclip.reproduce.measure`.

The job comes in on stdin and the answer goes out on stdout, both as JSON; see `measure`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch

from edgeclip.evaluate.footprint import peak_rss_mb, run_fresh
from edgeclip.evaluate.latency import MEASURE_SECONDS, queries, time_calls
from edgeclip.image import crop_uint8
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.reproduce.models import load_any


def measure(folder: Path, image: Path, captions: list[str], *, threads: int, repeats: int) -> dict[str, Any]:
    """Measure a saved model in a fresh process.

    Args:
        folder: as written by `save_checkpoint` or `save_student`.
        image: the picture that is encoded and queried with.
        captions: the candidates of a query; the first one is encoded and queried with.
        threads: for the model.
        repeats: timed calls of each kind at most.

    Returns:
        {"times": {"image" | "text" | "i2t" | "t2i": [ms, ...]}, "peak_rss_mb": x}.
    """
    job = {"folder": str(folder), "image": str(image), "captions": captions, "threads": threads, "repeats": repeats}
    return run_fresh("edgeclip.reproduce.measure", job, threads)


@torch.inference_mode()
def _measure(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    image, captions = Path(job["image"]), job["captions"]
    loaded = load_any(job["folder"])
    model, preprocess, tokenizer = loaded.model, loaded.preprocess_config, loaded.tokenizer
    pixels = crop_uint8(image, preprocess)[None]

    calls = queries(
        lambda: encode_images(model, pixels, preprocess),
        lambda: encode_images(model, crop_uint8(image, preprocess)[None], preprocess),
        lambda: encode_texts(model, captions[:1], tokenizer),
        candidates=len(captions),
        embedding_size=model.config.projection_dim,
    )
    times = time_calls(calls, repeats=job["repeats"], budget_s=MEASURE_SECONDS)
    return {"times": times, "peak_rss_mb": peak_rss_mb()}


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))
