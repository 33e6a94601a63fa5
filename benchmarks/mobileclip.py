"""MobileCLIP at full size with random weights: our bundles beside open_clip's fp32 and its plain export, one thread.

    pip install --no-deps --target runs/open_clip open_clip_torch==3.3.0 timm==1.0.31
    python benchmarks/mobileclip.py --open-clip runs/open_clip --work runs/mobileclip

An image tensor and the tokens of a text, embeddings out; calls in turn in one process, by processor time and by the
clock. `--open-clip` is a folder of its own, since open_clip wants torchvision, which nothing here calls: a stand-in
takes its place. Weights are drawn with heavy tails, and normalisations have seen images, as in a trained network.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import edgeclip
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.export.graph import OPSET, quiet

PRECISIONS = ("fp32", "int8")
THEIRS, PLAIN = "open_clip fp32", "plain export, ONNX Runtime fp32"
GOALS = {THEIRS: 3.0, PLAIN: 1.3, "edgeclip fp32": 1.0}
"""How many times faster than these int8 is to be on an image."""
CAPTION = "a photo of two dogs that run through the snow"
UNTIMED = 2
Calls = dict[str, Callable[[], Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--open-clip", type=Path, default=Path("runs/open_clip"), help="where open_clip and timm are")
    parser.add_argument("--work", type=Path, default=Path("runs/mobileclip"), help="where models are made")
    parser.add_argument("--model", default="MobileCLIP2-S0", help="one of open_clip's configurations")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = arguments.work / arguments.model
    work.mkdir(parents=True, exist_ok=True)
    model, config = _open_clip(arguments.open_clip, arguments.model)
    checkpoint = work / "checkpoint"
    if not checkpoint.is_dir():
        _write_checkpoint(model, config, arguments.open_clip, checkpoint)
    for precision in PRECISIONS:
        if not (work / precision).is_dir():
            edgeclip.export(checkpoint, work / precision, precision=precision, samples=20, threads=1, workers=0)
    results = _measured(model, config, work, arguments.repeats)
    text = json.dumps({"model": arguments.model, **results, "environment": environment(1)}, indent=2)
    arguments.out.write_text(text + "\n") if arguments.out else print(text)


class InterpolationMode(Enum):
    """Torchvision's, which timm asks for by value."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A package any of whose modules has any class, none of which does anything."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        is_its = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_its else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__path__ = []

        def stand_in(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return InterpolationMode if name == "InterpolationMode" else type(name, (), {})

        module.__getattr__ = stand_in  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def _open_clip(folder: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """The model with drawn weights, and its configuration."""
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, _Torchvision())
    import open_clip

    config = open_clip.get_model_config(name)
    torch.manual_seed(0)
    with quiet():  # it warns of drawn weights
        model = open_clip.create_model(name).eval()
    _as_if_trained(model, config["vision_cfg"]["image_size"])
    return model, config


@torch.no_grad()
def _as_if_trained(model: Any, side: int) -> None:
    draw = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("gamma"):
            tensor.copy_(0.2 + 0.05 * torch.randn(tensor.shape, generator=draw))
        elif tensor.ndim >= 2 and tensor.is_floating_point() and "embedding" not in name:
            tensor.mul_(torch.exp(0.5 * torch.randn(tensor.shape, generator=draw)).clamp(max=6))
    model.visual.train()
    for module in model.visual.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean of all batches
            module.reset_running_stats()
    for _ in range(2):
        model.visual(torch.rand(4, 3, side, side, generator=draw) * torch.rand(4, 3, 1, 1, generator=draw))
    model.eval()


def _write_checkpoint(model: Any, config: dict[str, Any], packages: Path, folder: Path) -> None:
    """As open_clip's pages on the hub have it."""
    part = folder.with_name("checkpoint.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, part / "open_clip_model.safetensors")
    preprocess = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (part / "open_clip_config.json").write_text(json.dumps(content))
    shutil.copy(packages / "open_clip" / "bpe_simple_vocab_16e6.txt.gz", part)
    part.rename(folder)


class _Tower(nn.Module):
    """One tower of open_clip's, to be exported."""

    def __init__(self, model: Any, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, x: Tensor) -> Tensor:
        """`pixel_values` or `input_ids` -> (B, E)."""
        embeds: Tensor = getattr(self.model, f"encode_{self.kind}")(x, normalize=True)
        return embeds


def _measured(model: Any, config: dict[str, Any], work: Path, repeats: int) -> dict[str, Any]:
    clips = {f"edgeclip {name}": edgeclip.load(work / name, threads=1, cache=None) for name in PRECISIONS}
    side, found = config["vision_cfg"]["image_size"], dict[str, Any]()
    pixels = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    input_ids = clips["edgeclip fp32"].bundle.tokenizer([CAPTION])
    length = config["text_cfg"].get("context_length", 77)
    padded = np.pad(input_ids, ((0, 0), (0, length - input_ids.shape[1])))  # as open_clip's tokenizer has it
    for kind, theirs, ours in (("image", pixels, pixels), ("text", padded, input_ids)):
        calls = {
            THEIRS: _eager(getattr(model, f"encode_{kind}"), torch.from_numpy(theirs)),
            PLAIN: _plain(_Tower(model, kind).eval(), torch.from_numpy(theirs), work / f"plain-{kind}.onnx"),
            **{name: partial(clip._graphs[kind].run, ours) for name, clip in clips.items()},
        }
        found[kind] = _compared(calls) | _timed(calls, repeats)
    sizes = {name: clip.bundle.bytes / 1e6 for name, clip in clips.items()}
    return {**found, "MB": {THEIRS: bytes_on_disk(work / "checkpoint") / 1e6, **sizes}, "goals": GOALS}


def _eager(encode: Callable[..., Tensor], x: Tensor) -> Callable[[], Any]:
    @torch.inference_mode()
    def call() -> Any:
        return encode(x, normalize=True).numpy()

    return call


def _plain(tower: nn.Module, example: Tensor, path: Path) -> Callable[[], Any]:
    if not path.is_file():
        with quiet():
            torch.onnx.export(tower, (example,), path, dynamo=True, opset_version=OPSET, external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: example.numpy()}
    return lambda: session.run(None, given)[0]


def _compared(calls: Calls) -> dict[str, Any]:
    exact, *others = (np.asarray(call())[0] for call in calls.values())
    cosines = [float(exact @ other / math.sqrt((exact @ exact) * (other @ other))) for other in others]
    return {"cosine to open_clip": dict(zip(list(calls)[1:], [round(cosine, 6) for cosine in cosines], strict=True))}


def _timed(calls: Calls, repeats: int) -> dict[str, Any]:
    """Medians of processor time and of the clock, and how many times faster int8 is by processor time."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for round_ in range(repeats + UNTIMED):
        for name, call in calls.items():
            cpu, clock = time.process_time(), time.perf_counter()
            call()
            if round_ >= UNTIMED:
                spent[name].append((time.process_time() - cpu, time.perf_counter() - clock))
    cpu_ms, clock_ms = ({name: _median_ms(times, column) for name, times in spent.items()} for column in (0, 1))
    faster = {name: round(ms / cpu_ms["edgeclip int8"], 2) for name, ms in cpu_ms.items() if name != "edgeclip int8"}
    return {"CPU ms": cpu_ms, "ms by the clock": clock_ms, "times faster is int8": faster}


def _median_ms(times: Sequence[tuple[float, float]], column: int) -> float:
    return round(1000 * statistics.median(time[column] for time in times), 2)


if __name__ == "__main__":
    main()
