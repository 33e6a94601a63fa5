"""Latency and peak memory of one model, in a process of its own: `python -m edgeclip.measure.fresh`.

A job comes in as a line of JSON on standard input; then, for each further line, the model is timed once and the answer
goes out as a line of JSON. Between rounds the process sleeps, so that several of them can take turns. It imports
PyTorch only where the model needs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from edgeclip.evaluate.footprint import peak_rss_mb
from edgeclip.evaluate.latency import MEASURE_SECONDS, queries, time_calls
from edgeclip.image import Crop, crop_uint8
from edgeclip.measure.source import load_encoder


class FreshProcess:
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
        fixed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeclip.measure.fresh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **fixed},
        )
        job = {"source": str(source), "image": str(image), "captions": captions, "threads": threads, "repeats": repeats}
        self._tell(json.dumps(job))

    def measure(self) -> dict[str, Any]:
        """Time one round: {"times": {"image" | "text" | "i2t" | "t2i": [ms, ...]}, "peak_rss_mb": x}.

        Raises:
            RuntimeError: the process failed; its own message is included.
        """
        self._tell("")
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        if answer := self._process.stdout.readline():
            return json.loads(answer)
        code = self._process.wait()
        self._errors.seek(0)
        raise RuntimeError(f"measuring ended with {code}: {self._errors.read().strip()[-2000:]}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has failed; `measure` tells how

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def _main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    job = json.loads(sys.stdin.readline())
    encoder, preprocess = load_encoder(job["source"], threads=job["threads"])
    image, captions = Path(job["image"]), job["captions"]
    crop = Crop(crop_uint8(image, preprocess))
    calls = queries(encoder, image, crop, captions)
    for _ in sys.stdin:
        times = time_calls(calls, repeats=job["repeats"], budget_s=MEASURE_SECONDS)
        print(json.dumps({"times": times, "peak_rss_mb": peak_rss_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    _main()
