"""File to embedding against everything else a user could pick, side by side: `make bench`.

A ViT-B/32 with random weights goes through transformers, PyTorch's dynamic int8, plain exports in ONNX Runtime,
OpenVINO with NNCF, and edgeclip. Calls are timed in turn in one process (A B C ... A B C ...), with pauses in which
the threads of the last one come to rest; starts and memory in processes of their own, in turn too. JSON goes to
standard output or --out; benchmarks/report.py makes a dated report of it. Only ratios within a run mean anything.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peer_bounds import bounds
from peer_models import (
    CAPTION,
    CONTEXT,
    ORT_FP32,
    ORT_INT8,
    OURS,
    OURS_FP32,
    OV_FP32,
    OV_INT8,
    QNNPACK,
    TRANSFORMERS,
    X86,
    Peer,
    make_files,
    open_peer,
    processor,
)
from peer_photos import photographs, write_photos

from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.latency import time_calls
from edgeclip.tokenizer import load_tokenizer

PEERS = (TRANSFORMERS, QNNPACK, X86, ORT_FP32, ORT_INT8, OV_FP32, OV_INT8, OURS_FP32, OURS)
STARTED = (TRANSFORMERS, ORT_INT8, OV_INT8, OURS)
PAUSE_S = 0.05
GOALS = (
    ("image tensor", TRANSFORMERS, 3.0),
    ("image tensor", ORT_INT8, 1.2),
    ("image tensor", OV_INT8, 1.5),
    ("caption of 14 tokens", ORT_INT8, 5.0),
    ("caption of 14 tokens", TRANSFORMERS, 5.0),
    ("JPEG of 4032x3024", ORT_INT8, 5.0),
    ("JPEG of 1920x1080", ORT_INT8, 2.2),
    ("start to first image embedding", TRANSFORMERS, 5.0),
)
"""How many times faster than a peer edgeclip's int8 bundle is to be."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/peers"), help="where models and photos are made")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="where clip-bpe and flickr8k-1k may be")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = measure(arguments)
    text = json.dumps(results, indent=2)
    arguments.out.write_text(text + "\n") if arguments.out else print(text)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one record."""
    work, threads = arguments.work, arguments.threads
    photos = write_photos(work / "photos", photographs(arguments.shared / "flickr8k-1k"))
    pixels = [processor()(path) for path in photos.small[:32]]
    say("making models")
    vocabulary = arguments.shared / "clip-bpe" / "bpe_simple_vocab_16e6.txt.gz"
    make_files(work, vocabulary if vocabulary.is_file() else None, pixels)
    input_ids = load_tokenizer(work / "checkpoint", CONTEXT)([CAPTION], pad_to_longest=True)
    if input_ids.shape != (1, 14):
        raise SystemExit(f"the caption has {input_ids.shape[1]} tokens; expected 14")
    peers = {name: open_peer(name, work, threads) for name in PEERS}
    works: dict[str, Callable[[Peer], Callable[[], object]]] = {
        "image tensor": lambda peer: lambda: peer.image(pixels[0]),
        "caption of 14 tokens": lambda peer: lambda: peer.text(input_ids),
        "JPEG of 1920x1080": lambda peer: lambda: peer.file(photos.full_hd),
        "JPEG of 4032x3024": lambda peer: lambda: peer.file(photos.large),
    }
    milliseconds = {}
    for work_name, make in works.items():
        say(work_name)
        calls = {name: make(peer) for name, peer in peers.items()}
        milliseconds[work_name] = summary(
            time_calls(calls, repeats=arguments.repeats, warmup=2, budget_s=600, pause_s=PAUSE_S)
        )
    peers.clear()
    say("bulk")
    bulk = bulk_rates(work, photos.small, threads)
    say("starts and memory")
    starts = started(arguments, photos.small[0])
    milliseconds["start to first image embedding"] = starts["milliseconds"]
    return {
        "date": datetime.date.today().isoformat(),
        "command": "python " + " ".join(sys.argv),
        "environment": environment(threads) | versions(),
        "photos": {path.name: path.stat().st_size for path in (photos.full_hd, photos.large)},
        "milliseconds": milliseconds,
        "ratios": [ratio(milliseconds, *goal) for goal in GOALS],
        "bulk_images_per_second": bulk,
        "peak_rss_mb": starts["peak_rss_mb"],
        "disk_mb": disk(work),
        "bounds": bounds(work, photos, threads),
    }


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and fastest of each, in the unit they came in."""
    return {
        name: {"median": round(statistics.median(values), 3), "fastest": round(min(values), 3)}
        for name, values in times.items()
    }


def ratio(milliseconds: dict[str, Any], work: str, peer: str, goal: float) -> dict[str, Any]:
    """The peer's time over ours."""
    theirs, ours = milliseconds[work][peer], milliseconds[work][OURS]
    medians = theirs["median"] / ours["median"]
    return {
        "work": work,
        "against": peer,
        "times faster": round(medians, 2),
        "of the fastest": round(theirs["fastest"] / ours["fastest"], 2),
        "goal": goal,
        "met": medians >= goal,
    }


def bulk_rates(work: Path, paths: list[Path], threads: int) -> dict[str, float]:
    """Images a second over a folder of ordinary photos, each peer as its users would do it; two rounds, the better."""
    import torch

    import edgeclip

    clip = edgeclip.load(work / "bundle-int8", threads=1)
    process, torch_peer, ort_peer = (
        processor(),
        open_peer(TRANSFORMERS, work, threads),
        open_peer(ORT_INT8, work, threads),
    )

    def batches_of_16() -> None:
        for start in range(0, len(paths), 16):
            torch_peer.image(np.concatenate([process(path) for path in paths[start : start + 16]]))

    ways: dict[str, Callable[[], object]] = {
        TRANSFORMERS: batches_of_16,
        ORT_INT8: lambda: [ort_peer.file(path) for path in paths],
        OURS: lambda: clip.encode_image(paths, workers=threads),
    }
    torch.set_num_threads(threads)
    times = time_calls(ways, repeats=2, warmup=1, budget_s=0, pause_s=0.5)
    return {name: round(len(paths) / (min(values) / 1e3), 1) for name, values in times.items()}


def started(arguments: argparse.Namespace, photo: Path) -> dict[str, Any]:
    """Seconds from the start of a process to its first embedding, and its peak memory, in turn."""
    script = Path(__file__).with_name("peer_start.py")
    times: dict[str, list[float]] = {name: [] for name in STARTED}
    memory: dict[str, dict[str, float]] = {name: {} for name in STARTED}
    for _ in range(arguments.starts):
        for name in STARTED:
            for what in ("image", "both"):
                command = [sys.executable, str(script), name, str(arguments.work), str(photo), str(arguments.threads)]
                start = time.time()
                done = subprocess.run(
                    [*command, *(["both"] if what == "both" else [])], capture_output=True, text=True, check=True
                )
                answer = json.loads(done.stdout.splitlines()[-1])
                if what == "image":
                    times[name].append((answer["ready"] - start) * 1e3)
                memory[name][what] = round(max(memory[name].get(what, 0), answer["peak_rss_mb"]), 1)
    return {"milliseconds": summary(times), "peak_rss_mb": memory}


def disk(work: Path) -> dict[str, float]:
    """Megabytes of both towers with what they need to run."""
    folders = {TRANSFORMERS: "checkpoint", OURS: "bundle-int8", OURS_FP32: "bundle-fp32"}
    sizes = {name: bytes_on_disk(work / folder) for name, folder in folders.items()}
    weights = (work / "checkpoint" / "model.safetensors").stat().st_size
    return {name: round(size / 1e6, 1) for name, size in sizes.items()} | {
        "the fp32 weights over our int8 bundle": round(weights / sizes[OURS], 3)
    }


def versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("transformers", "openvino", "nncf")}


if __name__ == "__main__":
    main()
