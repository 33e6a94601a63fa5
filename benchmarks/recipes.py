"""The shipped recipes at full length on the built-in teacher and its outlier twin: `python benchmarks/recipes.py`.

Runs `edgeclip distill` for every recipe and seed, each in a folder of --work, and goes on where it stopped; then prints
a table of what is there: R@1 of int8 on unseen pairs, the mean of both directions, beside the teacher and its
post-training int8. A seed draws other scenes, to train and to measure on; its recipes share the teacher's cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillation import interval

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.model.outliers import outlier_twin

TEACHER, TWIN = "builtin:tabletop", "twin"
RUNS = (("half", TEACHER), ("quarter", TEACHER), ("eighth", TEACHER), ("qad", TEACHER), ("qad", TWIN))
"""In order: `quarter` and `eighth` take over the cache of `half`, which has the same scenes and teacher."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--recipes", default="half,quarter,eighth,qad", help="commas between them")
    parser.add_argument("--seeds", default="0,1,2", help="commas between them")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="print what is there and run nothing")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    wanted = [run for run in RUNS if run[0] in arguments.recipes.split(",")]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if not arguments.report:
        for seed in seeds:
            for recipe, teacher in wanted:
                distill(recipe, teacher, seed, arguments)
    print(markdown(arguments.work, seeds))


def place(work: Path, recipe: str, teacher: str, seed: int) -> Path:
    """The folder of one run."""
    return work / f"{recipe}{'-twin' if teacher == TWIN else ''}-{seed}"


def distill(recipe: str, teacher: str, seed: int, arguments: argparse.Namespace) -> None:
    """One run, unless it is there."""
    out = place(arguments.work, recipe, teacher, seed)
    if (out / "results.json").is_file():
        return
    shared = place(arguments.work, "half", TEACHER, seed) / "cache"
    if recipe in ("quarter", "eighth") and shared.is_dir() and not out.exists():
        shutil.copytree(shared, out / "cache")
    options = {"seed": seed, "pairs": arguments.pairs, "threads": arguments.threads, "workers": 0}
    command = [sys.executable, "-m", "edgeclip.cli.main", "distill", model(arguments.work, teacher)]
    command += ["--recipe", recipe, "--out", str(out), *(["--resume"] if (out / "state").is_dir() else [])]
    subprocess.run([*command, *(f"--{key}={value}" for key, value in options.items())], check=True)


def model(work: Path, teacher: str) -> str:
    """What `edgeclip distill` is given."""
    if teacher != TWIN:
        return teacher
    folder = work / TWIN
    if not folder.is_dir():
        loaded = load_checkpoint(TEACHER)
        twin = dataclasses.replace(loaded, model=outlier_twin(loaded.model))
        save_checkpoint(twin.model, twin.preprocess_config, twin.tokenizer, folder)
    return str(folder)


def markdown(work: Path, seeds: Sequence[int]) -> str:
    """A line for each recipe with what its runs have found."""
    lines = [
        "| recipe | seeds | TEACHER fp32 | STUDENT int8 | DISTILLED int8 | DISTILLED - TEACHER | bytes, fp32 teacher's "
        "over its own | image encoding, STUDENT's time over its own |",
        "|---" * 8 + "|",
    ]
    for recipe, teacher in RUNS:
        files = [place(work, recipe, teacher, seed) / "results.json" for seed in seeds]
        found = [[*map(Row, json.loads(file.read_text())["rows"])] for file in files if file.is_file()]
        if found:
            name = f"{recipe}{', outlier twin' if teacher == TWIN else ''}"
            differences = [distilled.r1 - whole.r1 for whole, _, distilled in found]
            smaller = statistics.median(whole.mb / distilled.mb for whole, _, distilled in found)
            faster = statistics.median(student.ms / distilled.ms for _, student, distilled in found)
            cells = [interval([rows[column].r1 for rows in found]) for column in range(3)]
            cells += [interval(differences), f"{smaller:.1f}", f"{faster:.2f}"]
            lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class Row:
    """What is read of a row of results.json."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.r1 = (row["i2t"]["r1"]["value"] + row["t2i"]["r1"]["value"]) / 2
        self.mb, self.ms = row["size_mb"], row["latency_ms"]["image"]["p50"]


if __name__ == "__main__":
    main()
