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

import numpy as np
import torch

from edgeclip.evaluate.footprint import peak_rss_mb, run_fresh
from edgeclip.evaluate.latency import time_calls
from edgeclip.image import crop_uint8
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.reproduce.models import load_any


def measure(
    folder: Path, image: Path, captions: list[str], *, threads: int, repeats: int, budget_s: float
) -> dict[str, Any]:
    """Measure a saved model in a fresh process.

    Args:
        folder: as written by `save_checkpoint` or `save_student`.
        image: the picture that is encoded and queried with.
        captions: the candidates of a query; the first one is encoded and queried with.
        threads: for the model.
        repeats: timed calls of each kind at most.
        budget_s: seconds for all of them at most.

    Returns:
        {"times": {"image" | "text" | "i2t" | "t2i": [ms, ...]}, "peak_rss_mb": x}.
    """
    job = {
        "folder": str(folder),
        "image": str(image),
        "captions": captions,
        "threads": threads,
        "repeats": repeats,
        "budget_s": budget_s,
    }
    return run_fresh("edgeclip.reproduce.measure", job, threads)


@torch.inference_mode()
def _measure(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    image, captions = Path(job["image"]), job["captions"]
    loaded = load_any(job["folder"])
    model, preprocess, tokenizer = loaded.model, loaded.preprocess_config, loaded.tokenizer
    pixels = crop_uint8(image, preprocess)[None]

    def embed_image() -> np.ndarray:
        return encode_images(model, crop_uint8(image, preprocess)[None], preprocess)

    def embed_text() -> np.ndarray:
        return encode_texts(model, captions[:1], tokenizer)

    # A query is answered against candidates that were embedded before; random ones cost the same to compare with.
    bank = np.random.default_rng(0).standard_normal((len(captions), model.config.projection_dim)).astype(np.float32)
    calls = {
        "image": lambda: encode_images(model, pixels, preprocess),
        "text": embed_text,
        "i2t": lambda: int((bank @ embed_image()[0]).argmax()),
        "t2i": lambda: int((bank @ embed_text()[0]).argmax()),
    }
    times = time_calls(calls, repeats=job["repeats"], budget_s=job["budget_s"])
    return {"times": times, "peak_rss_mb": peak_rss_mb()}


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))
