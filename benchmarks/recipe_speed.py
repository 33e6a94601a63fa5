"""How fast distilled bundles are: `python benchmarks/recipe_speed.py` after `recipes.py`, with the same --work.

The STUDENT, which is the teacher's post-training int8, and every recipe's bundle encode the same frame and the same
caption in one process, one after the other in every round, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from recipes import TEACHER, place

import edgeclip
from edgeclip.evaluate.environment import environment

STUDENT = "STUDENT"
RECIPES = ("half", "quarter", "eighth", "qad")
CAPTION = "a photo of a small red cube left of a large blue sphere"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", default="1,2", help="commas between them")
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    student = arguments.work / "student"
    if not student.is_dir():
        command = [sys.executable, "-m", "edgeclip.cli.main", "export", TEACHER, "--out", str(student)]
        subprocess.run([*command, "--precision", "int8"], check=True, stdout=sys.stderr)
    folders = {STUDENT: student}
    folders |= {name: place(arguments.work, name, TEACHER, arguments.seed) / "bundle" for name in RECIPES}
    found = {name: folder for name, folder in folders.items() if folder.is_dir()}
    counts = [int(count) for count in arguments.threads.split(",")]
    runs = [{"environment": environment(n), "bundles": measure(found, n, arguments.rounds)} for n in counts]
    print(json.dumps({"rounds": arguments.rounds, "runs": runs}, indent=2))


def measure(folders: dict[str, Path], threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each bundle, and the STUDENT's time over its own."""
    clips = {name: edgeclip.load(folder, threads=threads) for name, folder in folders.items()}
    frame = np.random.default_rng(0).integers(0, 256, (*clips[STUDENT].bundle.preprocess.crop_size, 3), dtype=np.uint8)
    seconds: dict[str, dict[str, list[float]]] = {name: {"image": [], "text": []} for name in clips}
    for number in range(rounds + 1):
        for name, clip in clips.items():
            for kind, encode in (
                ("image", lambda clip=clip: clip.encode_image([frame])),
                ("text", lambda clip=clip: clip.encode_text([CAPTION])),
            ):
                start = time.perf_counter()
                encode()
                if number > 0:  # the first opens the graph
                    seconds[name][kind].append(time.perf_counter() - start)
    medians = {name: {kind: statistics.median(parts) for kind, parts in by.items()} for name, by in seconds.items()}
    return {
        name: {
            f"{kind}_{unit}": round(value, 3)
            for kind in ("image", "text")
            for unit, value in (
                ("ms", 1000 * medians[name][kind]),
                ("times_faster", medians[STUDENT][kind] / medians[name][kind]),
            )
        }
        for name in clips
    }


if __name__ == "__main__":
    main()
