"""A multilingual text tower in int8 against what sentence-transformers computes in float.

Makes a folder as sentence-transformers/clip-ViT-B-32-multilingual-v1 has it: DistilBERT of the published size with
119,547 words, the mean of its tokens and a layer to 512; weights and words are drawn, the weights with heavy tails. It
is exported as a bundle of one tower in fp32 and in int8. Texts of 8 and 24 words are encoded one by one, by both
bundles and by transformers' model with the same tokens and mean, which is what sentence-transformers runs: CPU time of
one thread, the three in turn, medians.
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
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

import edgeclip
from edgeclip.evaluate.environment import environment

WORDS, EMBEDDING, LENGTH = 119_547, 512, 128
DEGREES = 4.0
"""Of Student's t distribution, of which the weights are drawn."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--texts", type=int, default=6, help="of each length")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "multilingual"
        model, dense = made(folder)
        found = measured(folder, Path(scratch), model, dense, arguments.texts, arguments.rounds)
    print(json.dumps({"environment": environment(1), **found}, indent=2))


def made(folder: Path) -> tuple[DistilBertModel, Tensor]:
    """The folder, the transformer in it, and the layer after it (512, 768)."""
    torch.manual_seed(0)
    model = DistilBertModel(DistilBertConfig(vocab_size=WORDS)).eval()
    tails = torch.distributions.StudentT(DEGREES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.copy_(tails.sample(parameter.shape) * 0.03)
            elif name.endswith("weight"):
                parameter.copy_(1 + 0.1 * tails.sample(parameter.shape))
    model.save_pretrained(folder)
    words = {**{token: i for i, token in enumerate(SPECIAL)}, **{f"w{i}": i for i in range(len(SPECIAL), WORDS)}}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, words[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    dense = torch.randn(EMBEDDING, 768) * 0.04
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    listed = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    act = "torch.nn.modules.linear.Identity"
    files: dict[str, Any] = {
        "modules.json": listed,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "sep_token": "[SEP]",
        },
        "sentence_bert_config.json": {"max_seq_length": LENGTH},
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {
            "in_features": 768,
            "out_features": EMBEDDING,
            "bias": False,
            "activation_function": act,
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    save_file({"linear.weight": dense}, folder / "2_Dense" / "model.safetensors")
    return model, dense


def measured(
    folder: Path, scratch: Path, model: DistilBertModel, dense: Tensor, texts: int, rounds: int
) -> dict[str, Any]:
    """Sizes, cosines and times."""
    for precision in ("fp32", "int8"):
        edgeclip.export(folder, scratch / precision, precision=precision, samples=20, threads=1, workers=0)
    clips = {name: edgeclip.load(scratch / name, threads=1, cache=None) for name in ("fp32", "int8")}
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def theirs(some: list[str]) -> NDArray[np.float32]:
        tokens = tokenizer(some, return_tensors="pt", truncation=True, max_length=LENGTH, padding=True)
        seen = tokens["attention_mask"]
        states = model(input_ids=tokens["input_ids"], attention_mask=seen).last_hidden_state
        mean = (states * seen[..., None]).sum(dim=1) / seen.sum(dim=1, keepdim=True)
        return functional.normalize(mean @ dense.T, dim=-1).numpy()

    runs: dict[str, Callable[[list[str]], Any]] = {"transformers fp32": theirs}
    runs |= {f"edgeclip {name}": clip.encode_text for name, clip in clips.items()}
    draw, rows = np.random.default_rng(1), {}
    for words in (8, 24):
        some = [" ".join(f"w{i}" for i in draw.integers(len(SPECIAL), WORDS, words)) for _ in range(texts)]
        rows[f"{words} words"] = {**compared(runs, some), **timed(runs, some, rounds)}
    sizes = {name: clip.bundle.bytes for name, clip in clips.items()}
    return {"bytes": {**sizes, "transformers": (folder / "model.safetensors").stat().st_size}, "texts": rows}


def compared(runs: dict[str, Callable[[list[str]], Any]], texts: list[str]) -> dict[str, Any]:
    """The smallest cosine of each to the first, and of what tells texts apart, their mean taken away."""
    exact, *others = (run(texts) for run in runs.values())
    mean = exact.mean(axis=0)
    found = {}
    for name, embeds in zip(list(runs)[1:], others, strict=True):
        apart, own = exact - mean, embeds - mean
        cosines = (apart * own).sum(axis=1) / np.linalg.norm(apart, axis=1) / np.linalg.norm(own, axis=1)
        found[f"{name}, cosine"] = round(float((exact * embeds).sum(axis=1).min()), 5)
        found[f"{name}, cosine of differences"] = round(float(cosines.min()), 5)
    return found


def timed(runs: dict[str, Callable[[list[str]], Any]], texts: list[str], rounds: int) -> dict[str, Any]:
    """CPU milliseconds a text, one by one, and how many times faster than the first."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for text in texts:
            for name, run in runs.items():
                started = time.process_time()
                run([text])
                spent[name].append(1000 * (time.process_time() - started))
    medians = {name: statistics.median(times) for name, times in spent.items()}
    first = next(iter(medians.values()))
    rows = {f"{name}, ms": round(ms, 2) for name, ms in medians.items()}
    return rows | {f"{name}, times faster": round(first / ms, 2) for name, ms in list(medians.items())[1:]}


if __name__ == "__main__":
    main()
