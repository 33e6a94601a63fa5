"""A bundle, or one tower of it, in a process of its own: `python -m edgeclip.measure.bundle_process`.

The process opens the bundle, and then does what each line of JSON asks for: {"do": "open", ...}, or "time",
"throughput", "memory", "embed".
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from edgeclip.evaluate.encoder import embed_images, embed_texts
from edgeclip.evaluate.footprint import peak_rss_mb, pss_mb
from edgeclip.evaluate.latency import time_calls
from edgeclip.files import write_atomically
from edgeclip.image import Crop
from edgeclip.measure.child import Child, first_line
from edgeclip.runtime import load
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.openvino_session import openvino_core

Tower: TypeAlias = Literal["image", "text"]
TOWERS: tuple[Tower, ...] = ("image", "text")
THROUGHPUT_S = 2.0
"""How long images are counted for."""


class BundleProcess(Child):
    """A process with a bundle; a context manager that ends it."""

    def __init__(
        self,
        folder: Path,
        crops: Path,
        texts: Path,
        *,
        threads: int,
        towers: Sequence[Tower] = TOWERS,
        cap_mb: float | None = None,
        timeout_s: float = 3600,
    ) -> None:
        """Start it.

        Args:
            folder: the bundle.
            crops: .npy file of decoded images (N, S, S, 3) uint8; the first is timed with.
            texts: JSON list of texts; the first is timed with.
            threads: for the graphs.
            towers: which are opened; the other takes no memory.
            cap_mb: see `Child`.
            timeout_s: see `Child`.
        """
        job = {"folder": str(folder), "crops": str(crops), "texts": str(texts), "towers": list(towers)}
        super().__init__("edgeclip.measure.bundle_process", job, threads=threads, cap_mb=cap_mb, timeout_s=timeout_s)

    def open(self) -> dict[str, float]:
        """Open the bundle up to its first embeddings.

        Returns:
            `open_ms` from the call of `load`, `cold_ms` from the start of the process, `rss_mb` at its peak since.

        Raises:
            ChildError: see `Child.ask`, here and below.
        """
        return self.ask(do="open")

    def time(self, calls: int, *, warmup: int = 1, seconds: float = 60) -> dict[str, list[float]]:
        """Milliseconds of each call, by tower: a decoded image to its embedding, and a text."""
        return self.ask(do="time", calls=calls, warmup=warmup, seconds=seconds)

    def throughput(self, workers: int) -> dict[str, float]:
        """`images` a second, by so many workers, each with the process's threads."""
        return self.ask(do="throughput", workers=workers)

    def memory(self) -> dict[str, float | None]:
        """`rss_mb` at its peak, and `pss_mb` now, where the system tells it."""
        return self.ask(do="memory")

    def embed(self, out: Path) -> dict[str, float]:
        """Embed all crops, or all texts, of the one tower that is open, into a .npy file (N, E) float32."""
        return self.ask(do="embed", out=str(out))


def _main() -> None:
    job, answers = first_line()
    crops, texts = np.load(job["crops"], mmap_mode="r"), json.loads(Path(job["texts"]).read_text())
    start = time.perf_counter()
    clip = load(job["folder"], threads=job["threads"], cache=None)
    calls: dict[str, Callable[[], Any]] = {
        "image": lambda: clip.encode_image([Crop(np.asarray(crops[0]))]),
        "text": lambda: clip.encode_text(texts[:1]),
    }
    calls = {tower: calls[tower] for tower in job["towers"]}
    if clip.engine == "openvino":
        openvino_core()
    for call in calls.values():
        call()
    opened = {
        "open_ms": (time.perf_counter() - start) * 1e3,
        "cold_ms": (time.time() - job["started"]) * 1e3,
        "rss_mb": peak_rss_mb(),
    }
    while command := _next():
        match command["do"]:
            case "open":
                answer: dict[str, Any] = opened
            case "time":
                answer = time_calls(
                    calls, repeats=command["calls"], warmup=command["warmup"], budget_s=command["seconds"]
                )
            case "throughput":
                answer = {"images": _images_a_second(clip, crops, command["workers"])}
            case "memory":
                answer = {"rss_mb": peak_rss_mb(), "pss_mb": pss_mb()}
            case _:
                answer = _embed(clip, job["towers"][0], crops, texts, Path(command["out"]))
        print(json.dumps(answer), file=answers, flush=True)


def _next() -> dict[str, Any] | None:
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def _images_a_second(clip: ClipRuntime, crops: Any, workers: int) -> float:
    crop, done, start = Crop(np.asarray(crops[0])), 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < THROUGHPUT_S:
        done += len(clip.encode_image([crop] * (4 * workers), workers=workers))
    return done / passed


def _embed(clip: ClipRuntime, tower: Tower, crops: Any, texts: list[str], out: Path) -> dict[str, float]:
    embeds = embed_images(clip, [Crop(np.asarray(c)) for c in crops]) if tower == "image" else embed_texts(clip, texts)
    buffer = io.BytesIO()
    np.save(buffer, embeds)
    write_atomically(out, buffer.getvalue())
    return {"rows": len(embeds)}


if __name__ == "__main__":
    _main()
