"""The shipped recipes at full length on the built-in teacher and its outlier twin: `python benchmarks/recipes.py`.

Runs `edgeclip distill` for every recipe and seed, each in a folder of --work, and goes on where it stopped. A line of
--out is what came of a run; those that are there are not run again, unless the recipe has changed. Then a table is
printed: R@1 of int8 on unseen pairs, the mean of both directions, beside the teacher and its post-training int8. A seed
draws other scenes, to train and to measure on; its recipes share the teacher's cache. How fast the bundles are is for
`recipe_speed.py` to measure, one beside the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from distillation import interval, read

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.model.outliers import outlier_twin

TEACHER, TWIN = "builtin:tabletop", "twin"
RUNS = (("half", TEACHER), ("quarter", TEACHER), ("eighth", TEACHER), ("qad", TEACHER), ("qad", TWIN))
"""In order: `quarter` and `eighth` take over the cache of `half`, which has the same scenes and teacher."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--out", type=Path, default=Path("runs/recipes.jsonl"))
    parser.add_argument("--recipes", default="half,quarter,eighth,qad", help="commas between them")
    parser.add_argument("--seeds", default="0,1,2", help="commas between them")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="print what is there and run nothing")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    runs = [
        {"recipe": recipe, "teacher": teacher, "seed": seed, "pairs": arguments.pairs, "sha256": sha256_of(recipe)}
        for seed in seeds
        for recipe, teacher in RUNS
        if recipe in arguments.recipes.split(",")
    ]
    if not arguments.report:
        arguments.work.mkdir(parents=True, exist_ok=True)
        for run in runs:
            if not found(arguments.out, run):
                out = distill(run, arguments.work, arguments.threads)
                line = run | {"rows": [as_line(row) for row in json.loads((out / "results.json").read_text())["rows"]]}
                with arguments.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    print(markdown([line for run in runs if (line := found(arguments.out, run))]))


def sha256_of(recipe: str) -> str:
    """The hash of what a shipped recipe says, comments left aside."""
    said = msgspec.toml.decode((resources.files("edgeclip.assets") / "recipes" / f"{recipe}.toml").read_bytes())
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def found(path: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """The line of a run, if there is one."""
    return next((line for line in read(path) if run.items() <= line.items()), None)


def as_line(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a row of results.json."""
    i2t, t2i = row["i2t"]["r1"]["value"], row["t2i"]["r1"]["value"]
    return {"name": row["name"], "i2t_r1": i2t, "t2i_r1": t2i, "r1": (i2t + t2i) / 2, "size_mb": row["size_mb"]}


def place(work: Path, recipe: str, teacher: str, seed: int) -> Path:
    """The folder of one run."""
    return work / f"{recipe}{'-twin' if teacher == TWIN else ''}-{seed}"


def distill(run: dict[str, Any], work: Path, threads: int) -> Path:
    """The folder of a run, which is carried out unless its results are there."""
    recipe, teacher, seed = run["recipe"], run["teacher"], run["seed"]
    out = place(work, recipe, teacher, seed)
    if (out / "results.json").is_file():
        return out
    shared = place(work, "half", TEACHER, seed) / "cache"
    if recipe in ("quarter", "eighth") and shared.is_dir() and not out.exists():
        shutil.copytree(shared, out / "cache")
    options = {"seed": seed, "pairs": run["pairs"], "threads": threads, "workers": 0}
    command = [sys.executable, "-m", "edgeclip.cli.main", "distill", model(work, teacher)]
    command += ["--recipe", recipe, "--out", str(out), *(["--resume"] if (out / "state").is_dir() else [])]
    subprocess.run([*command, *(f"--{key}={value}" for key, value in options.items())], check=True)
    return out


def model(work: Path, teacher: str) -> str:
    """What `edgeclip distill` is given."""
    if teacher != TWIN:
        return teacher
    folder = work / TWIN
    if not folder.is_dir():
        checkpoint = load_checkpoint(TEACHER)
        twin = dataclasses.replace(checkpoint, model=outlier_twin(checkpoint.model))
        save_checkpoint(twin.model, twin.preprocess_config, twin.tokenizer, folder)
    return str(folder)


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """A line for each recipe with what its runs have found."""
    table = [
        "| recipe | seeds | TEACHER fp32 | STUDENT int8 | DISTILLED int8 | DISTILLED - TEACHER | DISTILLED - STUDENT "
        "| MB | fp32 teacher's bytes over its own |",
        "|---" * 9 + "|",
    ]
    for recipe, teacher in RUNS:
        rows = [line["rows"] for line in lines if (line["recipe"], line["teacher"]) == (recipe, teacher)]
        if rows:
            r1 = [[row["r1"] for row in run] for run in rows]
            megabytes = [row["size_mb"] for row in rows[0]]
            cells = [interval([run[column] for run in r1]) for column in range(3)]
            cells += [interval([run[2] - run[other] for run in r1]) for other in (0, 1)]
            cells += [f"{megabytes[2]:.2f}", f"{megabytes[0] / megabytes[2]:.1f}"]
            name = f"{recipe}{', outlier twin' if teacher == TWIN else ''}"
            table.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(table)


if __name__ == "__main__":
    main()
