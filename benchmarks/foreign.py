"""Another program's float graphs made a bundle of, beside ONNX Runtime's own `quantize_dynamic` of the same graphs.

    python benchmarks/foreign.py --work runs/foreign --repeats 20

A ViT-B/32 of transformers with random weights is exported with a projection and free batch, as transformers.js's
folders have it. Calls are timed in turn in one process by processor time, one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import quantize_dynamic
from peer_models import CAPTION, CONTEXT, SIDE, write_checkpoint
from transformers import CLIPModel

import edgeclip
from edgeclip.config import PreprocessConfig
from edgeclip.evaluate.environment import environment
from edgeclip.export.graph import quiet
from edgeclip.hf_preprocess import write_preprocess

GOALS = {"times smaller": 3.8, "cosine": 0.995, "times faster than quantize_dynamic": 1.0}
KINDS = {"vision": ("pixel_values", "image_embeds"), "text": ("input_ids", "text_embeds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/foreign"))
    parser.add_argument("--vocabulary", type=Path, help="OpenAI's; a stand-in of its size by default")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder, bundle = arguments.work / "onnx-folder", arguments.work / "bundle"
    if not folder.is_dir():
        _write_folder(folder, arguments.vocabulary)
    if not bundle.is_dir():
        edgeclip.export(folder, bundle, samples=20, threads=1, workers=0, logit_scale=100.0)
    text = json.dumps(_measured(folder, bundle, arguments.repeats) | {"environment": environment(1)}, indent=2)
    arguments.out.write_text(text + "\n") if arguments.out else print(text)


class Tower(torch.nn.Module):
    """One tower of transformers with its projection."""

    def __init__(self, model: CLIPModel, kind: str) -> None:
        super().__init__()
        self.tower = getattr(model, f"{kind}_model")
        self.projection = model.visual_projection if kind == "vision" else model.text_projection

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """The embeddings, not of unit length."""
        return self.projection(self.tower(given).pooler_output)


def _write_folder(folder: Path, vocabulary: Path | None) -> None:
    part = folder.with_name("onnx-folder.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(part, vocabulary)
    model = CLIPModel.from_pretrained(part).eval()
    (part / "onnx").mkdir()
    examples = {"vision": torch.zeros(1, 3, SIDE, SIDE), "text": torch.full((1, CONTEXT), 49407)}
    for kind, (given, output) in KINDS.items():
        path = part / "onnx" / f"{kind}_model.onnx"
        sizes = {given: {0: "batch", **({1: "tokens"} if kind == "text" else {})}, output: {0: "batch"}}
        names = {"input_names": [given], "output_names": [output], "dynamic_axes": sizes}
        with quiet():
            torch.onnx.export(Tower(model, kind).eval(), (examples[kind],), str(path), dynamo=False, **names)
        quantize_dynamic(path, part.parent / f"{kind}-dynamic.onnx")
    (part / "preprocessor_config.json").write_text(json.dumps(write_preprocess(PreprocessConfig.clip(SIDE))))
    (part / "model.safetensors").unlink()
    part.rename(folder)


def _measured(folder: Path, bundle: Path, repeats: int) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    clip = edgeclip.load(bundle, threads=1)
    inputs = {
        "vision": np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32),
        "text": clip.bundle.tokenizer([CAPTION], pad_to_longest=True),
    }
    found: dict[str, Any] = {"goals": GOALS}
    for kind, (given, _) in KINDS.items():
        floats = folder / "onnx" / f"{kind}_model.onnx"
        dynamic = folder.parent / f"{kind}-dynamic.onnx"
        theirs = onnxruntime.InferenceSession(str(dynamic), options, providers=["CPUExecutionProvider"])
        whole = onnxruntime.InferenceSession(str(floats), options, providers=["CPUExecutionProvider"])
        ours, feed = clip._graphs["image" if kind == "vision" else "text"], {given: inputs[kind]}
        calls = {
            "fp32": lambda whole=whole, feed=feed: whole.run(None, feed)[0],
            "quantize_dynamic": lambda theirs=theirs, feed=feed: theirs.run(None, feed)[0],
            "edgeclip": lambda ours=ours, kind=kind: ours.run(inputs[kind]),
        }
        seconds = _in_turn(calls, repeats)
        unit = {name: (row := np.asarray(call())[0]) / np.linalg.norm(row) for name, call in calls.items()}
        graph = clip.bundle.graph("image") if kind == "vision" else clip.bundle.graph("text")
        found[kind] = {
            "ms": {name: round(1e3 * value, 2) for name, value in seconds.items()},
            "times faster than quantize_dynamic": round(seconds["quantize_dynamic"] / seconds["edgeclip"], 3),
            "cosine": {name: round(float(unit[name] @ unit["fp32"]), 5) for name in ("quantize_dynamic", "edgeclip")},
            "times smaller": {
                "edgeclip": round(floats.stat().st_size / graph.stat().st_size, 3),
                "quantize_dynamic": round(floats.stat().st_size / dynamic.stat().st_size, 3),
            },
        }
    return found


def _in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median processor time of each call, s."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 3):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if round_ >= 3:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(some) for name, some in times.items()}


if __name__ == "__main__":
    main()
