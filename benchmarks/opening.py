"""What the cache of opened graphs gives: time to open both towers, and memory, with it and without, in turn.

    python benchmarks/opening.py clip-b32 --rounds 5 --out runs/opening.json

Every figure is of a process of its own: time from a loaded bundle to the first image and caption, memory after a
hundred more of each (Linux): private, in all with what is shared divided, at the peak, before a model is loaded, and of
the weights' pages that are mapped. The processor time of reading the vocabulary, once more, is told too. The first
opening with a cache makes it, and is told apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeclip.evaluate.environment import environment

ONE = """
import json, re, resource, sys, time
from pathlib import Path
import numpy as np
import onnxruntime
import edgeclip

def smaps(name):
    return [line.split() for line in Path("/proc/self", name).read_text().splitlines()]

before_mb = dict((words[0], words[1]) for words in smaps("smaps_rollup"))["Rss:"]
bundle, cache, threads = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
clip = edgeclip.load(bundle, threads=threads, cache=cache)
cpu, clock = time.process_time(), time.perf_counter()
clip.encode_image(image), clip.encode_text("a red ball, opened")
cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
for number in range(100):
    clip.encode_image(image)
    clip.encode_text(f"a photo of {number} red balls")
memory = {words[0].rstrip(":"): int(words[1]) / 1024 for words in smaps("smaps_rollup") if len(words) == 3}
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
weights_kb, is_weights = 0, False
for words in smaps("smaps"):
    if re.match("[0-9a-f]+-", words[0]):
        is_weights = words[-1].endswith("weights.bin")
    elif words[0] == "Rss:" and is_weights:
        weights_kb += int(words[1])
start = time.process_time()
del clip.bundle.__dict__["tokenizer"]
clip.bundle.tokenizer
vocabulary_ms = (time.process_time() - start) * 1e3
print(json.dumps({
    "cpu_ms": cpu * 1e3, "clock_ms": clock * 1e3, "private_mb": memory["Private_Dirty"], "pss_mb": memory["Pss"],
    "before_mb": int(before_mb) / 1024, "weights_mb": weights_kb / 1024, "vocabulary_ms": vocabulary_ms,
    "peak_rss_mb": peak_kb / 1024,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        making = one(arguments.bundle, cache, arguments.threads)
        runs: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        for _ in range(arguments.rounds):
            for name, folder in (("without", ""), ("with", cache)):
                runs[name].append(one(arguments.bundle, folder, arguments.threads))
        disk = sum(file.stat().st_size for file in Path(cache, "graphs").rglob("*") if file.is_file())
    found: dict[str, Any] = {"making": rounded(making), **{name: medians(of) for name, of in runs.items()}}
    found["with over without"] = {
        key: round(found["with"][key] / found["without"][key], 3) for key in making if found["without"][key]
    }
    found |= {"cache_mb": round(disk / 1e6, 1), "environment": environment(arguments.threads)}
    text = json.dumps(found, indent=2)
    arguments.out.write_text(text + "\n") if arguments.out else print(text)


def one(bundle: Path, cache: str, threads: int) -> dict[str, float]:
    """What one process takes."""
    command = [sys.executable, "-c", ONE, str(bundle), cache, str(threads)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return rounded({key: statistics.median(run[key] for run in runs) for key in runs[0]})


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 1) for key, value in figures.items()}


if __name__ == "__main__":
    main()
