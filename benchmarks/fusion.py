"""Token fusion: what it saves, and what it costs in recall.

`python benchmarks/fusion.py speed` writes the image towers of a ViT-B/16 and a ViT-L/14 with random weights to graphs in
fp32 and int8, with all tokens and with half of their work spared by each form and criterion, and times one image on one
thread: CPU time, the graphs in turn, medians. How many tokens are fused does not depend on the weights.

`python benchmarks/fusion.py recall --model DIR` exports a checkpoint with all tokens and fused, and prints R@1 of both on
unseen pairs; `--distilled DIR` adds the bundle of `edgeclip distill` with `recipes/fused.toml`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from msgspec.structs import replace

from edgeclip.checkpoint.published import published
from edgeclip.config import ClipConfig, Fusion, PreprocessConfig
from edgeclip.evaluate.environment import environment
from edgeclip.export.graph import write_image_graph
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.towers import ExportedImageTower
from edgeclip.model import Clip
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.shrink.fuse_tokens import POWERS
from edgeclip.shrink.fusion_schedule import read_schedule, spared, steps_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default="ViT-B-16,ViT-L-14", help="architectures, commas between them")
    parser.add_argument("--share", default="50%", help="the schedule, see `edgeclip export --help`")
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: speed(name, arguments.share, arguments.rounds) for name in arguments.models.split(",")}
    print(json.dumps({"environment": environment(1), "speed": found}, indent=2))


def speed(name: str, share: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each graph in fp32 and in int8, in turn."""
    config = published(name)
    assert config is not None
    small = replace(config.text, num_hidden_layers=1, vocab_size=100, eos_token_id=99)  # which is not looked at
    config = replace(config, text=small)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        runs: list[tuple[dict[str, Any], Callable[[], object]]] = []
        for fusion in fusions(config, share):
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


def fusions(config: ClipConfig, share: str) -> list[Fusion | None]:
    """None for all tokens, then both forms by both criteria."""
    attention, size = POWERS[1]
    found: list[Fusion | None] = [None]
    for steps in steps_of(read_schedule(share), config.vision):
        found.append(Fusion(criterion="tome", steps=steps))
        found.append(Fusion(criterion="mctf", steps=steps, attention_power=attention, size_power=size))
    return found


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


if __name__ == "__main__":
    main()
