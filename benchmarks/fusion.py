"""Token fusion: what it saves, and what it costs in recall.

`python benchmarks/fusion.py speed` writes the image towers of a ViT-B/16 and a ViT-L/14 with random weights as graphs
in fp32 and int8, with all tokens and with half of their work spared by each form and criterion, and times an image: CPU
time of one thread, the graphs in turn, medians. How many tokens are fused does not depend on the weights.

`python benchmarks/fusion.py recall --model DIR` prints R@1 of a checkpoint with all tokens and with as much spared, in
float, on unseen scenes of the built-in world, and how many points are lost, of the same pairs and resampled with them.
With `--distilled DIR` it adds what `edgeclip distill` has made of it with recipes/fused.toml.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

import edgeclip
from edgeclip.checkpoint import load_checkpoint
from edgeclip.checkpoint.published import published
from edgeclip.config import ClipConfig, Fusion, PreprocessConfig
from edgeclip.data.prepare import prepare
from edgeclip.data.split import CALIBRATE, scenes
from edgeclip.evaluate.encoder import Encoder
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.retrieval import ranks
from edgeclip.export.calibration_batches import image_batches
from edgeclip.export.graph import write_image_graph
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.towers import ExportedImageTower
from edgeclip.model import Clip
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.shrink.fuse_tokens import POWERS, fuse_tokens, with_fusion
from edgeclip.shrink.fusion_schedule import Criterion, read_schedule, spared, steps_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["speed", "recall"])
    parser.add_argument("--models", default="ViT-B-16,ViT-L-14", help="architectures, commas between them")
    parser.add_argument("--model", default="builtin:tabletop")
    parser.add_argument("--distilled", help="the `out` of edgeclip distill")
    parser.add_argument("--schedule", default="50%", help="see `edgeclip export --help`")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: Any
    if arguments.what == "speed":
        found = {name: speed(name, arguments.schedule, arguments.rounds) for name in arguments.models.split(",")}
    else:
        distilled = Path(arguments.distilled) if arguments.distilled else None
        found = recall(arguments.model, distilled, arguments.schedule, arguments.pairs, arguments.seed)
    print(json.dumps({"environment": environment(1), arguments.what: found}, indent=2))


def speed(name: str, schedule: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each graph in fp32 and in int8, in turn."""
    config = published(name)
    if config is None:
        raise SystemExit(f"no architecture {name}")
    small = replace(config.text, num_hidden_layers=1, vocab_size=100, eos_token_id=99)  # which is not looked at
    config = replace(config, text=small)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        runs: list[tuple[dict[str, Any], Callable[[], object]]] = []
        for fusion in (None, *fusions(config, schedule)):
            graphs = write(config, fusion, Path(scratch))
            for precision, path in graphs.items():
                row = {"precision": precision, **described(config, fusion), "ms": []}
                rows.append(row)
                runs.append((row, runner(path, config.vision.image_size)))
        for _, run in runs:
            run()
        for _ in range(rounds):
            for row, run in runs:
                started = time.process_time()
                run()
                row["ms"].append(1000 * (time.process_time() - started))
    for row in rows:
        whole = next(r for r in rows if r["precision"] == row["precision"])
        row["times_faster"] = round(statistics.median(whole["ms"]) / statistics.median(row["ms"]), 2)
    for row in rows:
        row["ms"] = round(statistics.median(row["ms"]), 1)
        print(row, flush=True)
    return rows


def fusions(config: ClipConfig, schedule: str) -> list[Fusion]:
    """Each form by each criterion that the schedule leaves open, MCTF with the paper's powers."""
    read = read_schedule(schedule)
    powers = {"tome": (0.0, 0.0), "mctf": POWERS[1]}
    return [
        Fusion(criterion=criterion, steps=steps, attention_power=powers[criterion][0], size_power=powers[criterion][1])
        for steps in steps_of(read, config.vision)
        for criterion in (get_args(Criterion) if read.criterion is None else (read.criterion,))
    ]


def described(config: ClipConfig, fusion: Fusion | None) -> dict[str, Any]:
    if fusion is None:
        return {"criterion": None, "layers": 0, "spared": 0.0}
    return {
        "criterion": fusion.criterion,
        "layers": len(fusion.steps),
        "spared": round(spared(config.vision, fusion.steps), 3),
    }


def write(config: ClipConfig, fusion: Fusion | None, folder: Path) -> dict[str, Path]:
    """The graphs of an image tower with random weights."""
    torch.manual_seed(0)
    model = Clip(replace(config, vision=replace(config.vision, fusion=fusion)))
    name = f"{len(list(folder.iterdir()))}"
    paths = {precision: folder / f"{name}-{precision}.onnx" for precision in ("fp32", "int8")}
    write_image_graph(ExportedImageTower(model).eval(), paths["fp32"])
    pixels = PixelBytes.of(PreprocessConfig.clip(config.vision.image_size), model.vision.patch_embedding.in_features)
    Int8Tower(paths["fp32"], pixels).write(paths["int8"])
    return paths


def runner(path: Path, side: int) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype(np.float32)
    return lambda: session.run(None, {"pixel_values": image})


def recall(model: str, distilled: Path | None, schedule: str, pairs: int, seed: int) -> list[dict[str, Any]]:
    """A row for all tokens, for each form and criterion, for what is chosen of them, and for what was distilled."""
    teacher = load_checkpoint(model)
    preprocess = teacher.preprocess_config
    parts = [scenes("calibrate", seed, CALIBRATE), scenes("measure", seed, pairs)]
    calibrate, measure = (
        prepare(part.captions, part.indices, preprocess, workers=0, on_bad_image="fail") for part in parts
    )
    images = image_batches(calibrate, preprocess)
    chosen = fuse_tokens(teacher.model, read_schedule(schedule), images)
    encoders: dict[str, Encoder] = {"all tokens": teacher}
    for fusion in fusions(teacher.model.config, schedule):
        name = f"{fusion.criterion} at {len(fusion.steps)} layers"
        encoders[name] = dataclasses.replace(teacher, model=with_fusion(teacher.model, fusion))
    encoders[f"chosen: {chosen.config.vision.fusion}"] = dataclasses.replace(teacher, model=chosen)
    if distilled is not None:
        encoders["distilled, float"] = load_checkpoint(distilled / "checkpoint")
        encoders["distilled, int8 bundle"] = edgeclip.load(distilled / "bundle", threads=1)
    rows, whole = [], None
    for name, encoder in encoders.items():
        images_NE = encoder.encode_image(measure.crops)
        ranks_2N = ranks(images_NE, encoder.encode_text(measure.first_captions), np.arange(pairs))
        hits_2N = np.stack([r == 0 for r in ranks_2N]).astype(float)
        whole = (images_NE, hits_2N) if whole is None else whole
        row: dict[str, Any] = {"tokens": name, "cosine": round(float((images_NE * whole[0]).sum(axis=1).mean()), 4)}
        for direction, hits_N, of_whole_N in zip(("i2t", "t2i"), hits_2N, whole[1], strict=True):
            row[direction] = round(100 * float(hits_N.mean()), 1)
            row[f"{direction}_lost"] = lost(of_whole_N - hits_N)
        print(row, flush=True)
        rows.append(row)
    return rows


def lost(difference_N: NDArray[np.float64]) -> list[float]:
    """Points, and their 95 % bootstrap interval over pairs."""
    draws_RN = np.random.default_rng(0).integers(len(difference_N), size=(2000, len(difference_N)))
    low, high = np.percentile(difference_N[draws_RN].mean(axis=1), [2.5, 97.5])
    return [round(100 * float(value), 2) for value in (difference_N.mean(), low, high)]


if __name__ == "__main__":
    main()
