"""SigLIP 2 B/16-256 at full size with random weights: int8 bundles beside transformers' fp32, one thread.

    python benchmarks/siglip2.py --work runs/siglip2 --tokenizer tokenizer.json --captions ../flickr8k/captions.csv

Calls are timed in turn in one process by processor time, so that neighbours hardly matter; memory is the peak of a
process of its own that has opened both towers: of the first, which keeps the opened graphs on disk, and of a later one.
`--tokenizer` is Gemma's tokenizer.json; without it another of its kind and size stands in, with the words of the
captions. For `--keep-words` 40,000 texts are drawn from these words.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

import edgeclip
from edgeclip.checkpoint import load_checkpoint
from edgeclip.data.load_data import load_data
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.samples import load_samples
from edgeclip.shrink.keep_words import keep_words, read_words

SIDE, CONTEXT, WORDS, TEXTS = 256, 64, 256_000, 40_000
GOALS = {"image": 3.0, "text": 3.0, "bytes": 3.9, "bytes with few words": 10.0}
"""How many times faster or smaller than transformers' fp32 int8 is to be."""
PEAK_MB = 450
OPEN = """
import sys
import numpy as np
import edgeclip
from edgeclip.evaluate.footprint import peak_rss_mb
clip = edgeclip.load(sys.argv[1], threads=1)
clip.encode_image(np.zeros((256, 256, 3), np.uint8)), clip.encode_text("a photo of two dogs in the snow")
print(peak_rss_mb())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/siglip2"), help="where models are made")
    parser.add_argument("--tokenizer", type=Path, help="Gemma's tokenizer.json")
    parser.add_argument("--captions", default="builtin:tabletop", help="whose words are kept")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    captions = [
        caption for record in load_data(arguments.captions, samples=1000, seed=0).records for caption in record.captions
    ]
    checkpoint = arguments.work / "checkpoint"
    if not checkpoint.is_dir():
        _write_checkpoint(checkpoint, arguments.tokenizer, captions)
    _write_texts(arguments.work / "texts.txt", captions)
    for name in ("all words", "few words"):
        if not (arguments.work / name).is_dir():
            texts = [str(arguments.work / "texts.txt")] if name == "few words" else []
            _write_bundle(checkpoint, arguments.work / name, texts)
    results = _measured(arguments, checkpoint, captions[0]) | {"environment": environment(1)}
    text = json.dumps(results, indent=2)
    arguments.out.write_text(text + "\n") if arguments.out else print(text)


def _write_checkpoint(folder: Path, given: Path | None, captions: list[str]) -> None:
    """As google/siglip2-base-patch16-256 lies on the hub."""
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    text = {**tower, "vocab_size": WORDS, "max_position_embeddings": CONTEXT, "projection_size": 768}
    torch.manual_seed(0)
    part = folder.with_name("checkpoint.part")
    shutil.rmtree(part, ignore_errors=True)
    SiglipModel(
        SiglipConfig(text_config=text, vision_config={**tower, "image_size": SIDE, "patch_size": 16})
    ).save_pretrained(part)
    tokenizer = Tokenizer.from_file(str(given)) if given else _stand_in(captions)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", tokenizer.token_to_id("<eos>"))]
    )
    tokenizer.save(str(part / "tokenizer.json"))
    config = {
        "tokenizer_class": "Siglip2Tokenizer",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "padding_side": "right",
    }
    (part / "tokenizer_config.json").write_text(json.dumps(config))
    preprocessor = {
        **{"image_processor_type": "SiglipImageProcessor", "size": {"height": SIDE, "width": SIDE}, "resample": 2},
        **{"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True},
        **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    }
    (part / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    part.rename(folder)


def _write_bundle(checkpoint: Path, out: Path, texts: list[str]) -> None:
    """In int8 as it is: channels of random weights need no equalization, and every layer is in int8."""
    whole = load_checkpoint(checkpoint)
    model = keep_words(whole, *read_words(texts)) if texts else whole
    samples = load_samples(SampleSettings(samples=4, workers=0), whole.preprocess_config)
    export_bundle(model, out, samples, precision="int8", threads=1, teacher=whole, as_trained=True)


def _stand_in(captions: list[str]) -> Tokenizer:
    """Byte pairs of the captions, and unused tokens for the rest of Gemma's 256,000."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))  # noqa: S106
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(captions, trainers.BpeTrainer(vocab_size=8000, special_tokens=special))
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    vocab |= {f"unused{number}": number for number in range(len(vocab), WORDS)}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 4]
    whole = Tokenizer.from_str(json.dumps(content))
    whole.decoder = decoders.ByteFallback()
    return whole


def _write_texts(path: Path, captions: list[str]) -> None:
    """40,000 different texts of 5 to 15 words of the captions."""
    words, draw = sorted({word for caption in captions for word in caption.split()}), random.Random(0)
    texts = {" ".join(draw.choices(words, k=draw.randint(5, 15))) for _ in range(TEXTS)}
    path.write_text("\n".join([*captions, *sorted(texts)]), encoding="utf-8")


def _measured(arguments: argparse.Namespace, checkpoint: Path, caption: str) -> dict[str, Any]:
    from transformers import SiglipModel

    theirs = SiglipModel.from_pretrained(checkpoint).eval()
    clips = {name: edgeclip.load(arguments.work / name, threads=1) for name in ("all words", "few words")}
    ours = clips["all words"]
    pixels = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    input_ids = ours.bundle.tokenizer([caption])
    graphs = {kind: ours._graphs[kind] for kind in ("image", "text")}
    with torch.no_grad():
        seconds = _in_turn(
            {
                "transformers image": lambda: theirs.get_image_features(torch.from_numpy(pixels)),
                "edgeclip image": lambda: graphs["image"].run(pixels),
                "transformers text": lambda: theirs.get_text_features(torch.from_numpy(input_ids)),
                "edgeclip text": lambda: graphs["text"].run(input_ids),
            },
            arguments.repeats,
        )
    fp32 = bytes_on_disk(checkpoint)
    manifests = {name: clip.own_bundle.manifest for name, clip in clips.items()}
    return {
        "ms": {name: round(value * 1e3, 1) for name, value in seconds.items()},
        "times faster": {k: round(seconds[f"transformers {k}"] / seconds[f"edgeclip {k}"], 2) for k in graphs},
        "MB": {"transformers fp32": fp32 / 1e6} | {name: clip.bundle.bytes / 1e6 for name, clip in clips.items()},
        "times smaller": {name: round(fp32 / clip.bundle.bytes, 2) for name, clip in clips.items()},
        "tokens": {name: clip.own_bundle.config.text.vocab_size for name, clip in clips.items()},
        "peak RSS MB": {name: _peaks(arguments.work / name) for name in clips},
        "mean cosines": {
            n: [m.card.image_cosine.mean, m.card.text_cosine.mean] for n, m in manifests.items() if m.card
        },
        "goals": GOALS | {"peak RSS MB": PEAK_MB},
    }


def _in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median processor time of each call, s."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 2):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if round_ >= 2:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(some) for name, some in times.items()}


def _peaks(bundle: Path) -> dict[str, float]:
    """Of the first process that opens a bundle, and of the one after it."""
    with tempfile.TemporaryDirectory() as cache:
        own = {**os.environ, "XDG_CACHE_HOME": cache}
        command = [sys.executable, "-c", OPEN, str(bundle)]
        return {
            name: round(float(subprocess.run(command, capture_output=True, text=True, check=True, env=own).stdout), 1)
            for name in ("first process", "later ones")
        }


if __name__ == "__main__":
    main()
