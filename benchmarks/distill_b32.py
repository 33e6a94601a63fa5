"""What distilling ViT-B/32 on a CPU takes, and how fast its students are: `python benchmarks/distill_b32.py`.

Every recipe trains a student of a ViT-B/32 with random weights at its own batch size, for one step an epoch. Printed as
JSON are the largest resident size of the process that trains (another measures the bundles), and what `results.json`
says of image encoding: the time of the STUDENT, the teacher's post-training int8, and of the DISTILLED, taken in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from peer_models import write_checkpoint

from edgeclip.distill.recipe import load_recipe
from edgeclip.evaluate.environment import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", default="qad,half,quarter,eighth", help="commas between them")
    parser.add_argument("--vocabulary", type=Path, default=Path("../shared/clip-bpe/bpe_simple_vocab_16e6.txt.gz"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "vit-b-32"
        write_checkpoint(checkpoint, arguments.vocabulary if arguments.vocabulary.is_file() else None)
        found = {
            recipe: distill(recipe, checkpoint, Path(scratch) / recipe, arguments.threads)
            for recipe in arguments.recipes.split(",")
        }
    print(json.dumps({"environment": environment(arguments.threads), "recipes": found}, indent=2))


def distill(recipe: str, checkpoint: Path, out: Path, threads: int) -> dict[str, float]:
    """Run `edgeclip distill` once.

    Raises:
        CalledProcessError: it failed.
    """
    batch_size = load_recipe(recipe).train.batch_size
    options = {"samples": batch_size, "pairs": 2, "threads": threads, "workers": 0}
    command = [sys.executable, "-m", "edgeclip.cli.main", "distill", str(checkpoint), "--recipe", recipe]
    command += ["--out", str(out), *(f"--{key}={value}" for key, value in options.items())]
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    _, student, distilled = json.loads((out / "results.json").read_text())["rows"]
    times = [row["latency_ms"]["image"]["p50"] for row in (student, distilled)]
    return {
        "batch_size": batch_size,
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),
        "student_image_ms": times[0],
        "distilled_image_ms": times[1],
        "times_faster": round(times[0] / times[1], 2),
    }


if __name__ == "__main__":
    main()
