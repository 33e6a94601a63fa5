"""SigLIPs of transformers.js: loaded without torch, and made int8 of, beside what transformers computes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SiglipModel

import edgeclip
from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.errors import BundleError, CheckpointError, ConfigError
from edgeclip.measure.foreign_inspection import inspect_foreign
from edgeclip.report.foreign import print_foreign
from edgeclip.runtime.foreign import foreign_graphs
from tests import published
from tests.foreign_folders import siglip
from tests.once import MadeOnce

PICTURES = np.random.default_rng(3).integers(0, 256, (3, 40, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(once: MadeOnce, exporter: Callable[..., object]) -> Path:
    def make(folder: Path) -> None:
        published.write_siglip2(folder / "checkpoint")
        siglip(exporter, published.write_siglip2(folder / "onnx"))

    return once("foreign siglip", make)


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    """Read by edgeclip, which other tests hold to transformers."""
    return load_checkpoint(folder / "checkpoint")


@pytest.mark.slow
def test_it_gives_what_the_checkpoint_gives(folder: Path, checkpoint: Checkpoint):
    with edgeclip.load(folder / "onnx", threads=1) as clip:
        np.testing.assert_allclose(clip.encode_image(PICTURES), checkpoint.encode_image(PICTURES), atol=5e-6)
        for batch_size in (1, 3):
            texts = clip.encode_text(published.SENTENCES, batch_size=batch_size)
            np.testing.assert_allclose(texts, checkpoint.encode_text(published.SENTENCES), atol=5e-6)
        assert (clip.embedding_size, clip.bundle.image_size, clip.bundle.context_length) == (64, 32, 64)


@pytest.mark.slow
def test_labels_are_judged_each_for_itself_with_scale_and_bias_of_the_graph(folder: Path, checkpoint: Checkpoint):
    labels = published.SENTENCES[:3]
    theirs = SiglipModel.from_pretrained(folder / "checkpoint").eval()
    pixels = torch.stack([checkpoint.preprocess(picture) for picture in PICTURES])
    with torch.no_grad():
        logits = theirs(pixel_values=pixels, input_ids=checkpoint.tokenize(labels)).logits_per_image
    with edgeclip.load(folder / "onnx", threads=1) as clip:
        assert clip.logit_bias == pytest.approx(theirs.logit_bias.item())
        for found, row in zip(clip.classify(PICTURES, labels, template="{}"), logits.sigmoid().tolist(), strict=True):
            probabilities = {label.name: label.probability for label in found}
            assert [probabilities[label] for label in labels] == pytest.approx(row, abs=1e-4)
        assert pickle.loads(pickle.dumps(clip)).logit_bias == clip.logit_bias


@pytest.mark.slow
def test_int8_in_a_bundle_s_form(folder: Path, checkpoint: Checkpoint, tmp_path: Path):
    edgeclip.export(folder / "onnx", tmp_path / "bundle", samples=4, workers=0, threads=1)
    with edgeclip.load(tmp_path / "bundle", threads=1) as clip:
        assert (clip.encode_image(PICTURES) * checkpoint.encode_image(PICTURES)).sum(axis=1).min() > 0.995
        texts = clip.encode_text(published.SENTENCES)
        assert (texts * checkpoint.encode_text(published.SENTENCES)).sum(axis=1).min() > 0.995
        assert clip.logit_bias == pytest.approx(checkpoint.logit_bias)
        config = json.loads((tmp_path / "bundle" / "config.json").read_text())
        assert (config["model_type"], config["text_config"]["vocab_size"]) == ("siglip", published.WORDS)


@pytest.mark.slow
def test_without_the_graph_of_both_towers_scale_and_bias_are_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    alone = tmp_path / "alone"
    for path in (folder / "onnx").rglob("*.*"):
        (alone / path.relative_to(folder / "onnx")).parent.mkdir(parents=True, exist_ok=True)
        if path.name != "model.onnx":
            (alone / path.relative_to(folder / "onnx")).write_bytes(path.read_bytes())
    layout = foreign_graphs(alone)
    print_foreign(inspect_foreign(alone, layout))
    assert "classify needs --logit-scale, logit bias not told: classify needs --logit-bias" in capsys.readouterr().out
    with pytest.raises(BundleError, match="logit scale"):
        edgeclip.load(alone, threads=1).classifier(["cat"])
    with pytest.raises(BundleError, match=r"logit bias.*give `logit_bias`"):
        edgeclip.load(alone, threads=1, logit_scale=100).classifier(["cat"])
    clip = edgeclip.load(alone, threads=1, logit_scale=100, logit_bias=-12.5)
    assert (clip.logit_scale, clip.logit_bias) == (100, -12.5)
    assert clip.classifier(["cat"]).logit_bias == -12.5


@pytest.mark.slow
def test_a_bias_of_a_clip_and_a_naflex_are_refused(foreign_folders: dict[str, Path], folder: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"`logit_bias` for .*, a CLIP"):
        edgeclip.load(foreign_folders["transformers.js"], logit_bias=-10)
    naflex = tmp_path / "naflex"
    (naflex / "onnx").mkdir(parents=True)
    for name in ("vision_model.onnx", "text_model.onnx"):
        (naflex / "onnx" / name).write_bytes((folder / "onnx" / "onnx" / name).read_bytes())
    config = {"model_type": "siglip2", "vision_config": {"num_patches": 256}, "text_config": {}}
    (naflex / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="a NaFlex checkpoint"):
        edgeclip.load(naflex)
