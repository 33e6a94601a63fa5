"""File to embedding against everything else a user could pick, side by side: `make bench`.

A ViT-B/32 with random weights goes through transformers, PyTorch's dynamic int8, plain exports in ONNX Runtime,
OpenVINO with NNCF, modern-onnx-clip, faster-clip and edgeclip; rclip 4 is left out, which needs Python 3.12 and has a
model of its own. Calls are timed in turn in one process (A B C ... A B C ...), with pauses in which the threads of the
last one come to rest; starts and memory in processes of their own, in turn too. JSON goes to standard output or --out;
benchmarks/report.py makes a dated report of it. Only ratios within a run mean anything.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peer_bounds import bounds
from peer_models import (
    CAPTION,
    CONTEXT,
    FASTER,
    MODERN,
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
from edgeclip.tokenizer_files import load_tokenizer

PEERS = (TRANSFORMERS, QNNPACK, X86, ORT_FP32, ORT_INT8, OV_FP32, OV_INT8, MODERN, FASTER, OURS_FP32, OURS)
STARTED = (TRANSFORMERS, ORT_INT8, OV_INT8, FASTER, OURS)
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
    works: dict[str, tuple[Callable[[Peer], Callable[[Any], object] | None], object]] = {
        "image tensor": (lambda peer: peer.image, pixels[0]),
        "caption of 14 tokens": (lambda peer: peer.text, input_ids),
        "JPEG of 1920x1080": (lambda peer: peer.file, photos.full_hd),
        "JPEG of 4032x3024": (lambda peer: peer.file, photos.large),
    }
    milliseconds, cpu_milliseconds = {}, {}
    for work_name, (of, given) in works.items():
        say(work_name)
        calls = {name: (call, given) for name, peer in peers.items() if (call := of(peer))}
        milliseconds[work_name], cpu_milliseconds[work_name] = timed(calls, arguments.repeats)
    peers.clear()
    say("bulk")
    bulk = bulk_rates(work, photos.small, threads)
    say("starts and memory")
    starts = started(arguments, photos.small[0])
    milliseconds["start to first image embedding"] = starts.pop("milliseconds")
    cpu_milliseconds["start to first image embedding"] = starts.pop("cpu_milliseconds")
    return {
        "date": datetime.date.today().isoformat(),
        "command": "python " + " ".join(sys.argv),
        "environment": environment(threads) | versions(),
        "photos": {path.name: path.stat().st_size for path in (photos.full_hd, photos.large)},
        "milliseconds": milliseconds,
        "cpu_milliseconds": cpu_milliseconds,
        "ratios": [ratio(milliseconds, *goal) for goal in GOALS],
        "bulk_images_per_second": bulk,
        **starts,
        "disk_mb": disk(work),
        "bounds": bounds(work, photos, threads),
    }


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def timed(calls: dict[str, tuple[Callable[[Any], object], object]], repeats: int) -> tuple[Any, Any]:
    """Of each call on what it is given, milliseconds of the clock, and of all its threads' processor time."""
    warmup = 2
    cpu: dict[str, list[float]] = {name: [] for name in calls}

    def run(name: str) -> None:
        call, given = calls[name]
        start = time.process_time()
        call(given)
        cpu[name].append((time.process_time() - start) * 1e3)

    runs = {name: functools.partial(run, name) for name in calls}
    times = time_calls(runs, repeats=repeats, warmup=warmup, budget_s=600, pause_s=PAUSE_S)
    return summary(times), summary({name: spent[warmup:] for name, spent in cpu.items()})


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
    """From the start of a process to its first embedding, and its memory, in turn; the last round makes two of each."""
    times: dict[str, list[float]] = {name: [] for name in STARTED}
    cpu: dict[str, list[float]] = {name: [] for name in STARTED}
    peak: dict[str, dict[str, float]] = {name: {} for name in STARTED}
    for _ in range(arguments.starts):
        for name in STARTED:
            for what in ("image", "both"):
                start = time.time()
                with _process(arguments, photo, name, what) as (_, answer):
                    pass
                if what == "both" and not answer["texts"]:
                    continue
                if what == "image":
                    times[name].append((answer["ready"] - start) * 1e3)
                    cpu[name].append(answer["cpu"] * 1e3)
                peak[name][what] = round(max(peak[name].get(what, 0), answer["peak_rss_mb"]), 1)
    pss = {}
    for name in (name for name, of in peak.items() if "both" in of):
        with _process(arguments, photo, name, "both") as (first, _):
            alone = pss_mb(first)
            with _process(arguments, photo, name, "both") as (second, _):
                pss[name] = {"one process": alone, "each of two": max(pss_mb(first), pss_mb(second))}
    return {"milliseconds": summary(times), "cpu_milliseconds": summary(cpu), "peak_rss_mb": peak, "pss_mb": pss}


@contextlib.contextmanager
def _process(
    arguments: argparse.Namespace, photo: Path, name: str, what: str
) -> Iterator[tuple[int, dict[str, float]]]:
    """A peer in a process of its own, with its id and what it said when its first embedding was there."""
    script = str(Path(__file__).with_name("peer_start.py"))
    command = [sys.executable, script, name, str(arguments.work), str(photo), str(arguments.threads), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.pid, json.loads(process.stdout.readline())


def pss_mb(pid: int) -> float:
    """Memory of a process in MB (10^6 bytes), of what it shares its part only."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return round(next(int(words[1]) for words in lines if words[0] == "Pss:") * 1024 / 1e6, 1)


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

    return {
        name: metadata.version(name) for name in ("transformers", "openvino", "nncf", "modern-onnx-clip", "faster-clip")
    }


if __name__ == "__main__":
    main()
