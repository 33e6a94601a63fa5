"""Int8 in ONNX Runtime and in OpenVINO: `python benchmarks/engines.py --model CHECKPOINT --out runs/engines.json`.

Both forms of int8 that `edgeclip compress` writes, of the same float graphs, in turn in one process. Cosines are to the
float graphs, on pictures and captions of the built-in world. Beside a busy program the fastest calls tell most.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from edgeclip.checkpoint import load_checkpoint
from edgeclip.evaluate.environment import environment
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.float_graphs import write_float_graphs
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.samples import load_samples
from edgeclip.runtime.openvino_session import OpenVinoSession
from edgeclip.runtime.session import LazySession, open_graph
from edgeclip.tune.layers import input_ranges

ENGINES = {"ONNX Runtime": open_graph, "OpenVINO": OpenVinoSession}
FORMS = ("fp32", "dynamic int8", "static int8")
CALLS = 3
"""Of one graph before the next one's turn, after one that does not count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="builtin:tabletop")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        batches = write_graphs(arguments.model, Path(folder))
        found = {
            f"{tower}, {threads} threads": compare(Path(folder), tower, batch, threads, arguments.rounds)
            for tower, batch in batches.items()
            for threads in arguments.threads
        }
    report = json.dumps(
        {"model": arguments.model, **found, "environment": environment(arguments.threads[-1])}, indent=1
    )
    print(report)
    if arguments.out:
        arguments.out.write_text(report + "\n")


def write_graphs(model: str, folder: Path) -> dict[str, list[np.ndarray]]:
    """Write every form of both towers; what to embed with each."""
    checkpoint = load_checkpoint(model)
    samples = load_samples(SampleSettings(data="builtin:tabletop", samples=24, seed=3), checkpoint.preprocess_config)
    (folder / "onnx").mkdir()
    floats = write_float_graphs(checkpoint, folder, calibrate=samples.calibrate)
    ranges = input_ranges(floats, samples.calibrate)
    for tower, pixels in (("image", floats.pixels), ("text", None)):
        graph = getattr(floats, tower).graph
        graph.rename(folder / f"{tower}-fp32")
        graph = folder / f"{tower}-fp32"
        Int8Tower(graph, pixels).write(folder / f"{tower}-dynamic int8")
        Int8Tower(graph, pixels).write(folder / f"{tower}-static int8", ranges=ranges[tower])
    images = image_batches(samples.measure, checkpoint.preprocess_config)
    texts = text_batches(samples.measure, checkpoint.tokenizer)
    return {name: [row.numpy()[None] for b in some for row in b] for name, some in (("image", images), ("text", texts))}


def compare(folder: Path, tower: str, rows: list[np.ndarray], threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds and processor milliseconds of a call, median and least, and cosines to the float graph."""
    runs: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"{form}, {engine}": LazySession(folder / f"{tower}-{form}", threads, open_).run
        for form in FORMS
        for engine, open_ in ENGINES.items()
    }
    exact = np.concatenate([runs["fp32, ONNX Runtime"](row) for row in rows])
    cosines = {name: (np.concatenate([run(row) for row in rows]) * exact).sum(axis=1) for name, run in runs.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            runs[name](rows[0])
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(CALLS):
                runs[name](rows[0])
            taken = time.perf_counter() - wall, time.process_time() - cpu
            times[name].append((taken[0] / CALLS * 1e3, taken[1] / CALLS * 1e3))
    found = {}
    for name, pairs in times.items():
        wall_ms, cpu_ms = zip(*pairs, strict=True)
        found[name] = {
            "ms": [round(median(wall_ms), 2), round(min(wall_ms), 2)],
            "processor_ms": [round(median(cpu_ms), 2), round(min(cpu_ms), 2)],
            "cosine": [round(float(cosines[name].mean()), 5), round(float(cosines[name].min()), 5)],
        }
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
