"""Bundles of SigLIP, MetaCLIP 2 and models with BERT's text towers, as a device runs them, against transformers and
against their float model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoModel

from edgeclip.bundle import read_bundle
from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.errors import ConfigError
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.immich import write_model_folder
from edgeclip.export.rewrites.folded_query import FoldedPooling
from edgeclip.export.samples import load_samples
from edgeclip.export.towers import ExportedImageTower, ExportedTextTower
from edgeclip.measure.inspection import inspect_bundle
from edgeclip.model.layers import AttentionPooling
from edgeclip.report.card import print_card
from edgeclip.runtime.clip import ClipRuntime, load
from edgeclip.runtime.selftest import self_test
from tests import published
from tests.once import MadeOnce

WRITE = {
    "siglip 2": published.write_siglip2,
    "metaclip 2": published.write_metaclip2,
    "chinese clip": published.write_chinese_clip,
    "dual encoder": published.write_dual_encoder,
}
PICTURES = np.random.default_rng(3).integers(0, 256, (3, 40, 60, 3), np.uint8)


@pytest.fixture(scope="module", params=WRITE)
def checkpoint(request: pytest.FixtureRequest, once: MadeOnce) -> Checkpoint:
    # once for all processes: a unigram vocabulary comes out otherwise in each, and the bundles are shared
    return load_checkpoint(once(f"family {request.param}", WRITE[request.param]))


def exported(checkpoint: Checkpoint, once: MadeOnce, precision: str, **options: bool) -> ClipRuntime:
    def make(folder: Path) -> None:
        samples = load_samples(
            SampleSettings(data="builtin:tabletop", samples=6, workers=0), checkpoint.preprocess_config
        )
        export_bundle(checkpoint, folder / "bundle", samples, precision=precision, threads=1, **options)

    family = Path(checkpoint.name).name.replace(" ", "-")
    return load(once(f"{family}-{precision}", make) / "bundle", threads=1)


@torch.no_grad()
def test_the_learned_query_folds_into_the_keys_exactly(tmp_path: Path):
    pooling = AttentionPooling(load_checkpoint(published.write_siglip(tmp_path)).model.config.vision)
    for parameter in pooling.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x_BTD = torch.randn(2, 9, 64)
    torch.testing.assert_close(FoldedPooling(pooling)(x_BTD), pooling(x_BTD), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_rewritten_towers_are_the_model(checkpoint: Checkpoint):
    pixels, input_ids = torch.randn(2, 3, 32, 32), checkpoint.tokenize(published.SENTENCES)
    image, text = ExportedImageTower(checkpoint.model).eval(), ExportedTextTower(checkpoint.model).eval()
    torch.testing.assert_close(image(pixels), checkpoint.model.encode_image(pixels), atol=2e-6, rtol=0)
    torch.testing.assert_close(text(input_ids), checkpoint.model.encode_text(input_ids), atol=2e-6, rtol=0)


@pytest.mark.slow
def test_a_float_bundle_is_the_checkpoint(checkpoint: Checkpoint, once: MadeOnce):
    with exported(checkpoint, once, "fp32") as clip:
        images, texts = clip.encode_image(PICTURES), clip.encode_text(published.HARD)
        np.testing.assert_allclose(images, checkpoint.encode_image(PICTURES), atol=5e-6)
        np.testing.assert_allclose(texts, checkpoint.encode_text(published.HARD), atol=5e-6)
        assert clip.logit_scale == pytest.approx(checkpoint.logit_scale)
        outputs = [
            onnx.load(path).graph.output[0].name for path in (clip.bundle.graph("image"), clip.bundle.graph("text"))
        ]
        siglip = checkpoint.model.config.sigmoid
        assert outputs == (["pooler_output"] * 2 if siglip else ["image_embeds", "text_embeds"])


@pytest.mark.slow
def test_an_int8_bundle_points_where_the_checkpoint_does(checkpoint: Checkpoint, once: MadeOnce):
    with exported(checkpoint, once, "int8", combined_graph=True) as clip:
        images, texts = clip.encode_image(PICTURES), clip.encode_text(published.HARD)
        assert (images * checkpoint.encode_image(PICTURES)).sum(axis=1).min() > 0.995
        assert (texts * checkpoint.encode_text(published.HARD)).sum(axis=1).min() > 0.995
        assert min(self_test(clip).values()) > 0.999
        graph = onnx.load(clip.bundle.graph("text")).graph
        tables = [tensor for tensor in graph.initializer if list(tensor.dims) == [published.WORDS, 64]]
        assert [tensor.data_type for tensor in tables] == [onnx.TensorProto.INT8]


@pytest.mark.slow
def test_labels_are_judged_one_by_one_as_by_transformers(
    checkpoint: Checkpoint, once: MadeOnce, capsys: pytest.CaptureFixture[str]
):
    with exported(checkpoint, once, "fp32") as clip:
        found = clip.classify(PICTURES, published.SENTENCES[:4], template="{}")
        theirs = AutoModel.from_pretrained(checkpoint.name).eval()
        pixels = torch.stack([checkpoint.preprocess(picture) for picture in PICTURES])
        with torch.no_grad():
            input_ids = checkpoint.tokenize(published.SENTENCES[:4])
            bert = checkpoint.model.config.text.bert
            seen = {} if bert is None else {"attention_mask": (input_ids != bert.pad_token_id).long()}
            logits = theirs(pixel_values=pixels, input_ids=input_ids, **seen)
        siglip = checkpoint.model.config.sigmoid
        expected = logits.logits_per_image.sigmoid() if siglip else logits.logits_per_image.softmax(dim=1)
        for labels, row in zip(found, expected.tolist(), strict=True):
            probabilities = {label.name: label.probability for label in labels}
            assert [probabilities[name] for name in published.SENTENCES[:4]] == pytest.approx(row, abs=1e-4)
            assert [label.probability for label in labels] == sorted(probabilities.values(), reverse=True)
        print_card(inspect_bundle(clip.bundle.folder))
        assert ("a sigmoid for each pair" in capsys.readouterr().out) == siglip


@pytest.mark.slow
def test_immich_gets_the_embeddings_of_the_runtime(checkpoint: Checkpoint, once: MadeOnce, tmp_path: Path):
    with exported(checkpoint, once, "fp32") as clip:
        write_model_folder(clip.bundle, tmp_path)
        textual = onnxruntime.InferenceSession(str(tmp_path / "textual" / "model.onnx"))
        for text in published.SENTENCES[:4]:
            (embedding,) = textual.run(None, {"text": checkpoint.tokenizer([text]).astype(np.int32)})
            np.testing.assert_allclose(embedding, clip.encode_text([text]), atol=1e-5)
        visual = onnxruntime.InferenceSession(str(tmp_path / "visual" / "model.onnx"))
        pixels = checkpoint.preprocess(PICTURES[0]).numpy()[None]
        np.testing.assert_allclose(visual.run(None, {"image": pixels})[0], clip.encode_image(PICTURES[:1]), atol=1e-5)


@pytest.mark.slow
def test_both_towers_in_one_graph_have_the_bias(checkpoint: Checkpoint, once: MadeOnce):
    with exported(checkpoint, once, "int8", combined_graph=True) as clip:
        graph = onnxruntime.InferenceSession(str(clip.bundle.folder / "onnx" / "model_quantized.onnx"))
        pixels = np.stack([checkpoint.preprocess(picture).numpy() for picture in PICTURES])
        input_ids = checkpoint.tokenizer(published.SENTENCES[:2])
        logits, _, texts, images = graph.run(None, {"pixel_values": pixels, "input_ids": input_ids})
        expected = clip.logit_scale * images @ texts.T + (clip.logit_bias or 0)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert (clip.logit_bias is not None) == checkpoint.model.config.sigmoid
        assert read_bundle(clip.bundle.folder).config == checkpoint.model.config


@pytest.mark.slow
def test_a_tower_too_large_for_one_file_is_rounded_from_two(
    checkpoint: Checkpoint, once: MadeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    samples = load_samples(SampleSettings(data="builtin:tabletop", samples=4, workers=0), checkpoint.preprocess_config)
    whole, beside = tmp_path / "whole", tmp_path / "beside"
    export_bundle(checkpoint, whole, samples, precision="int8", threads=1, as_trained=True)
    monkeypatch.setattr("edgeclip.export.graph.MAX_BYTES", 100_000)
    export_bundle(checkpoint, beside, samples, precision="int8", threads=1, as_trained=True)
    files = {path.relative_to(beside).as_posix() for path in beside.rglob("*") if path.is_file()}
    assert not any("data" in name for name in files)
    with load(whole, threads=1) as one, load(beside, threads=1) as two:
        np.testing.assert_array_equal(one.encode_image(PICTURES), two.encode_image(PICTURES))
        np.testing.assert_array_equal(one.encode_text(published.HARD), two.encode_text(published.HARD))
        assert abs(one.bundle.bytes - two.bundle.bytes) < 0.01 * one.bundle.bytes
    monkeypatch.setattr("edgeclip.export.int8.MAX_BYTES", 10_000)
    with pytest.raises(ConfigError, match=r"GB in int8; expected at most 2 GB"):
        export_bundle(checkpoint, tmp_path / "large", samples, precision="int8", threads=1, as_trained=True)
    with pytest.raises(ConfigError, match=r"GB in fp32; expected at most 2 GB.*`keep_words`"):
        export_bundle(checkpoint, tmp_path / "fp32", samples, precision="fp32", threads=1)
