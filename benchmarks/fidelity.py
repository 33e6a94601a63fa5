"""What int8 costs in accuracy: the built-in teacher and its outlier twin, each against its own fp32.

`python benchmarks/fidelity.py --pairs 1000 --seed 11` prints the release cards as JSON. The twin computes the same as
the teacher, but a few channels of every normalisation are 30 to 100 times larger, as in real checkpoints.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from edgeclip.bundle import Card
from edgeclip.checkpoint import load_checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.samples import load_samples
from edgeclip.model.outliers import outlier_twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    teacher = load_checkpoint("builtin:tabletop")
    models = {"teacher": teacher, "outlier twin": dataclasses.replace(teacher, model=outlier_twin(teacher.model))}
    settings = SampleSettings(data="builtin:tabletop", samples=arguments.pairs, seed=arguments.seed)
    samples = load_samples(settings, teacher.preprocess_config)
    results: dict[str, Any] = {}
    for name, checkpoint in models.items():
        with tempfile.TemporaryDirectory() as folder:
            _, card = export_bundle(
                checkpoint, Path(folder) / "b", samples, precision="int8", threads=arguments.threads
            )
        results[name] = {**lost(card), "card": msgspec.to_builtins(card)}
    print(json.dumps(results, indent=2))


def lost(card: Card) -> dict[str, float]:
    """Points of R@1 lost either way, and the mean cosines."""
    return {
        "I2T R@1 lost": round(card.teacher_i2t.r1.value - card.i2t.r1.value, 3),
        "T2I R@1 lost": round(card.teacher_t2i.r1.value - card.t2i.r1.value, 3),
        "image cosine": card.image_cosine.mean,
        "text cosine": card.text_cosine.mean,
    }


if __name__ == "__main__":
    main()
