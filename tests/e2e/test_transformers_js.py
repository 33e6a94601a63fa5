"""transformers.js reads a bundle offline, in Node, and gets what edgeclip's own runtime gets."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgeclip as library
from edgeclip.checkpoint import save_checkpoint
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.data.tabletop import render, sample_scene
from edgeclip.image import preprocess
from edgeclip.model import Clip
from edgeclip.runtime import ClipRuntime
from edgeclip.tokenizer import ClipTokenizer
from edgeclip.tokenizer_files import load_openai_vocabulary
from tests import published

NODE = Path(__file__).parents[1] / "node"
DTYPES = {"fp32": "fp32", "int8": "q8"}
LONG = "a red ball, " * 60
BATCHES = [
    ["a red ball on the table", "two blue boxes"],
    ["a green star"],
    ["", "Ünïcode — 日本語 🎉 ﬁ", "  DOUBLE\n spaces\t", "it's 2 o'clock!! don't", "e\u0301 é İ ß", "x<|endoftext|>y"],
    [LONG, "a box"],
]
LABELS = ["red ball", "blue box", "green star", "white mug"]
TEMPLATE = "a photo of a {}"

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
    pytest.mark.skipif(
        not (NODE / "node_modules" / "@huggingface" / "transformers").is_dir(), reason="needs `make node`"
    ),
]


@dataclass
class Run:
    """A bundle in both hands."""

    clip: ClipRuntime
    pictures: list[Path]
    answer: dict[str, Any]

    @property
    def is_float(self) -> bool:
        return self.clip.bundle.manifest.precision == "fp32"


@pytest.fixture(scope="module")
def mini_with_clip_vocabulary(tmp_path_factory: pytest.TempPathFactory, clip_vocabulary: Path) -> Path:
    """A small random model in the Hugging Face layout, with CLIP's own 49,408 tokens."""
    tokens = load_openai_vocabulary(clip_vocabulary, 77)._tokenizer
    tower = {"num_hidden_layers": 2, "intermediate_size": 64, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    config = ClipConfig(
        projection_dim=32,
        vision=VisionConfig(hidden_size=32, num_attention_heads=2, image_size=64, patch_size=16, **tower),
        text=TextConfig(
            hidden_size=32, num_attention_heads=2, vocab_size=49408, context_length=77, eos_token_id=None, **tower
        ),
    )
    folder = tmp_path_factory.mktemp("clip vocabulary") / "mini"
    torch.manual_seed(0)
    save_checkpoint(Clip(config), PreprocessConfig.clip(64), ClipTokenizer(tokens, context_length=77), folder)
    return folder


@pytest.fixture(
    scope="module",
    params=[
        *[("tabletop", "fp32"), ("tabletop", "int8"), ("tabletop that fuses tokens", "int8")],
        *[("mini", "fp32"), ("mini with --vocab", "int8"), ("siglip 2", "fp32"), ("siglip 2 of few words", "int8")],
        *[("siglip of few words", "fp32"), ("mini of few words", "fp32")],
    ],
    ids=lambda param: " ".join(param),
)
def run(request: pytest.FixtureRequest, edgeclip, tmp_path_factory: pytest.TempPathFactory) -> Run:
    name, precision = request.param
    model, options = "builtin:tabletop", []
    if name.startswith("mini"):
        model = request.getfixturevalue("mini_with_clip_vocabulary")
    if name.endswith("fuses tokens"):
        options = ["--fuse-tokens", "mctf:35%x3"]
    if name.endswith("--vocab"):  # whose tokenizer pads with "!", as OpenAI's code does
        options = ["--vocab", request.getfixturevalue("clip_vocabulary")]
    folder = tmp_path_factory.mktemp("clients")
    if name.startswith("siglip"):
        write = published.write_siglip2 if name.startswith("siglip 2") else published.write_siglip
        model = write(folder / "checkpoint")
    if name.endswith("of few words"):
        (folder / "texts.txt").write_text("\n".join(LABELS), encoding="utf-8")
        options = ["--keep-words", folder / "texts.txt", "--keep-words", "greek"]
    bundle = folder / "bundle"
    done = edgeclip(
        *("export", model, "--out", bundle, "--precision", precision, "--with-joint-graph"),
        *("--samples", 4, "--threads", 1),
        *options,
    )
    assert done.returncode == 0, done.stderr
    clip = library.load(bundle, threads=1)

    size = clip.bundle.config.vision.image_size
    scene = Image.fromarray(render(sample_scene("clients", 0, 3))).resize((size, size))
    scene.save(folder / "cropped.png")
    scene.resize((size * 20 // 7, size * 15 // 7), Image.Resampling.BICUBIC).save(folder / "photo.jpg", quality=90)
    pictures = [folder / "cropped.png", folder / "photo.jpg"]
    pixel_values = np.stack([preprocess(picture, clip.bundle.preprocess) for picture in pictures])
    (folder / "pixels").write_bytes(pixel_values.tobytes())
    client = {
        **{"bundle": str(bundle), "dtype": DTYPES[precision], "images": [str(picture) for picture in pictures]},
        **{"pixel_values": str(folder / "pixels"), "size": size, "texts": BATCHES, "labels": LABELS},
        "template": TEMPLATE,
        "padding": "max_length" if clip.bundle.tokenizer.fixed_length else True,
    }
    done = subprocess.run(
        ["node", "clients.mjs"], input=json.dumps(client), capture_output=True, text=True, cwd=NODE, check=False
    )
    assert done.returncode == 0, done.stderr
    return Run(clip, pictures, json.loads(done.stdout))


def cosines(a: object, b: object) -> np.ndarray:
    """Row by row; both sides are of unit length."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    return (a * b).sum(axis=1)


def test_token_ids(run: Run):
    for texts, answer in zip(BATCHES, run.answer["texts"], strict=True):
        expected = run.clip.bundle.tokenizer(texts, pad_to_longest=True)
        if LONG in texts:  # which transformers.js cuts with its end of text; `end_texts` puts it back
            end = run.clip.bundle.tokenizer.eos_token_id
            assert answer["input_ids"][0].pop() != expected[0, -1] == end
            assert answer["input_ids"][0] == expected[0, :-1].tolist()
            answer["input_ids"], expected = answer["input_ids"][1:], expected[1:]
        assert answer["input_ids"] == expected.tolist()


def test_text_embeds_of_batches(run: Run):
    for texts, answer in zip(BATCHES, run.answer["texts"], strict=True):
        expected = run.clip.encode_text(texts, batch_size=len(texts))
        assert cosines(answer["text_embeds"], expected).min() > 0.9999


def test_image_embeds_of_the_same_pixels(run: Run):
    assert run.answer["outputs"] == ["pooler_output" if run.clip.bundle.config.sigmoid else "image_embeds"]
    expected = run.clip.encode_image(run.pictures, batch_size=2)
    assert cosines(run.answer["from_pixels"], expected).min() > 0.9999
    if run.is_float:
        np.testing.assert_allclose(run.answer["from_pixels"], expected, atol=1e-5)


def test_image_embeds_of_files(run: Run):
    cropped, photo = cosines(run.answer["images"], run.clip.encode_image(run.pictures))
    assert cropped > 0.9999  # nothing to resize: the same pixels
    # transformers.js interpolates between four by four pixels whatever the factor, where Pillow weighs all that a new
    # pixel covers. At two to one and with no finer detail, as here, they differ by a grey level or two; with detail or
    # noise by more (on the built-in teacher, noisy pictures of 12 megapixels: 6 levels and a cosine of 0.9998).
    # A random tower has learnt no indifference to such things.
    assert photo > (0.999 if run.clip.bundle.manifest.teacher == "builtin:tabletop" else 0.99)


def test_zero_shot_scores(run: Run):
    ours = run.clip.classify(run.pictures, LABELS, template=TEMPLATE)
    for found, expected in zip(run.answer["labels"], ours, strict=True):
        scores = {label["label"]: label["score"] for label in found}
        # The photo's resize moves them; in int8 also the activation scale, which labels in one batch share.
        for label in expected:
            assert scores[label.name] == pytest.approx(label.probability, abs=0.01 if run.is_float else 0.03)
