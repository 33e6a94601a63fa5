"""What `edgeclip compress` chose, end to end beside its teacher in transformers.

`python benchmarks/compress_speed.py BUNDLE...` times a JPEG file's bytes to an embedding, and a text to an embedding:
transformers in fp32 as it runs by default, with its own processor and tokenizer, and each bundle, in one process, in
turn in every round, forwards and backwards by turns. With one thread the time is CPU time, which other work on the
machine hardly moves; with more it is that of the clock.
Ratios are medians over the rounds with their 95 % intervals; sizes are those of the fp32 weights and of the bundle.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from peer_photos import photographs, write_photos
from PIL import Image

import edgeclip
from edgeclip.bundle import read_bundle
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.evaluate.ratio import ratio

CAPTION = "a photo of a small red cube left of a large blue sphere"
THEIRS = "transformers fp32"
Calls = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--teacher", type=Path, help="a folder in the Hugging Face layout; the built-in one by default")
    parser.add_argument("--photos", type=Path, default=Path("../shared/flickr8k-1k"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch, resources.as_file(resources.files("edgeclip.assets")) as assets:
        photos = write_photos(Path(scratch), photographs(arguments.photos))
        files = {"small JPEG": photos.small[0], "1920x1080 JPEG": photos.full_hd}
        teacher = arguments.teacher or assets / "tabletop"
        model = transformers.CLIPModel.from_pretrained(teacher, dtype=torch.float32).eval()
        theirs_bytes = sum(4 * parameter.numel() for parameter in model.parameters())
        encoders = {THEIRS: of_transformers(model, teacher, files)}
        encoders |= {str(path): of_bundle(path, files, arguments.threads) for path in arguments.bundles}
        clock = time.process_time if arguments.threads == 1 else time.perf_counter
        times = in_turn(encoders, arguments.rounds, clock)
    found = {
        str(path): {
            "precision": read_bundle(path).manifest.precisions,
            "times_smaller": round(theirs_bytes / bytes_on_disk(path), 2),
            "times_faster": {what: edgeclip_over(times[THEIRS][what], ours) for what, ours in times[str(path)].items()},
        }
        for path in arguments.bundles
    }
    medians = {name: {what: round(statistics.median(ms), 3) for what, ms in by.items()} for name, by in times.items()}
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    said = {"clock": clock.__name__, "rounds": arguments.rounds, "ms": medians, "bundles": found}
    print(json.dumps({"environment": environment(arguments.threads) | versions} | said, indent=2))


def edgeclip_over(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """How many times faster, the median of rounds with its interval."""
    faster = ratio(theirs, ours)
    return {"value": faster.value, "low": faster.low, "high": faster.high}


def of_transformers(model: transformers.CLIPModel, folder: Path, files: dict[str, Path]) -> Calls:
    """Their model, as its documentation uses it."""
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def image(data: bytes) -> torch.Tensor:
        pixels = processor(Image.open(io.BytesIO(data)), return_tensors="pt")["pixel_values"]
        return normalised(model.get_image_features(pixels))

    @torch.no_grad()
    def text() -> torch.Tensor:
        return normalised(model.get_text_features(**tokenizer([CAPTION], return_tensors="pt")))

    return calls(image, text, files)


def normalised(embeds: Any) -> torch.Tensor:
    """Their features, which are in an output since transformers 5, with length 1."""
    embeds = getattr(embeds, "pooler_output", embeds)
    return embeds / embeds.norm(dim=-1, keepdim=True)


def of_bundle(folder: Path, files: dict[str, Path], threads: int) -> Calls:
    clip = edgeclip.load(folder, threads=threads)
    return calls(lambda data: clip.encode_image([data]), lambda: clip.encode_text([CAPTION]), files)


def calls(image: Callable[[bytes], object], text: Callable[[], object], files: dict[str, Path]) -> Calls:
    def of(data: bytes) -> Callable[[], object]:
        return lambda: image(data)

    return {name: of(path.read_bytes()) for name, path in files.items()} | {"text": text}


def in_turn(encoders: dict[str, Calls], rounds: int, clock: Callable[[], float]) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of every call of every encoder in every round."""
    times: dict[str, dict[str, list[float]]] = {name: {what: [] for what in by} for name, by in encoders.items()}
    for number in range(-2, rounds):
        names = list(encoders) if number % 2 else list(encoders)[::-1]
        for what in next(iter(encoders.values())):
            for name in names:
                start = clock()
                encoders[name][what]()
                if number >= 0:
                    times[name][what].append(1e3 * (clock() - start))
    return times


if __name__ == "__main__":
    main()
