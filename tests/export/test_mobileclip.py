"""Bundles of MobileCLIP, as a device runs them, against the folded model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.immich import write_model_folder
from edgeclip.export.samples import load_samples
from edgeclip.export.tower_pairs import pair_inputs_of_tower, pairs_of_tower
from edgeclip.export.towers import ExportedTextTower, exported_image_tower
from edgeclip.model.fastvit import Squeeze
from edgeclip.model.outliers import outlier_twin
from edgeclip.quantize.equalize import equalize
from edgeclip.quantize.sensitivity import fake_quantized
from edgeclip.runtime.clip import ClipRuntime, load
from edgeclip.runtime.selftest import self_test
from tests import mobileclip
from tests.once import MadeOnce

PICTURES = np.random.default_rng(3).integers(0, 256, (3, 80, 100, 3), np.uint8)
TEXTS = ["a red ball", "two blue boxes on a table and a small green star in the snow", "a"]


@pytest.fixture(scope="module", params=["MobileCLIP-S1", "MobileCLIP2-S3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    with pytest.MonkeyPatch.context() as patch:
        mobileclip.narrow(patch, request.param)
        yield load_checkpoint(mobileclip.write(request.param, tmp_path_factory.mktemp("mobileclip")))


def exported(checkpoint: Checkpoint, once: MadeOnce, precision: str) -> ClipRuntime:
    def make(folder: Path) -> None:
        samples = load_samples(
            SampleSettings(data="builtin:tabletop", samples=6, workers=0), checkpoint.preprocess_config
        )
        export_bundle(checkpoint, folder / "bundle", samples, precision=precision, threads=1, combined_graph=True)

    stages = len(checkpoint.config.vision.convolutions.stages)
    return load(once(f"mobileclip-{stages}-{precision}", make) / "bundle", threads=1)


@torch.no_grad()
def test_the_rewritten_towers_are_the_model(checkpoint: Checkpoint):
    pixels, input_ids = torch.rand(2, 3, 64, 64), checkpoint.tokenize(TEXTS)
    image, text = exported_image_tower(checkpoint.model), ExportedTextTower(checkpoint.model).eval()
    torch.testing.assert_close(image(pixels), checkpoint.model.encode_image(pixels), atol=2e-6, rtol=0)
    torch.testing.assert_close(text(input_ids), checkpoint.model.encode_text(input_ids), atol=2e-6, rtol=0)


@pytest.mark.slow
def test_a_float_bundle_is_the_checkpoint(checkpoint: Checkpoint, once: MadeOnce):
    with exported(checkpoint, once, "fp32") as clip:
        np.testing.assert_allclose(clip.encode_image(PICTURES), checkpoint.encode_image(PICTURES), atol=5e-6)
        np.testing.assert_allclose(clip.encode_text(TEXTS), checkpoint.encode_text(TEXTS), atol=5e-6)
        assert clip.bundle.config == checkpoint.config


@pytest.mark.slow
def test_an_int8_bundle_points_where_the_checkpoint_does(checkpoint: Checkpoint, once: MadeOnce):
    with exported(checkpoint, once, "int8") as clip:
        images, texts = clip.encode_image(PICTURES), clip.encode_text(TEXTS)
        assert (images * checkpoint.encode_image(PICTURES)).sum(axis=1).min() > 0.995
        assert (texts * checkpoint.encode_text(TEXTS)).sum(axis=1).min() > 0.995
        assert min(self_test(clip).values()) > 0.999


@pytest.mark.slow
def test_convolutions_stay_in_float_and_are_stored_in_half(checkpoint: Checkpoint, once: MadeOnce):
    with exported(checkpoint, once, "int8") as clip:
        graph = onnx.load(clip.bundle.graph("image")).graph
    kinds, weights = Counter(node.op_type for node in graph.node), {t.name: t for t in graph.initializer}
    linears = sum(isinstance(m, torch.nn.Linear) for m in checkpoint.model.vision.modules()) - 1  # the projection
    assert kinds["MatMulInteger"] + len(clip.bundle.manifest.float_layers) == linears
    assert "ConvInteger" not in kinds
    kernels = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert kernels
    assert all(weights[f"{name}_integers"].data_type == onnx.TensorProto.INT16 for name in kernels)


@pytest.mark.slow
def test_every_gelu_is_one_operation_once_a_graph_is_open(checkpoint: Checkpoint, once: MadeOnce, tmp_path: Path):
    with exported(checkpoint, once, "fp32") as clip:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(str(clip.bundle.graph("image")), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    squeezes = sum(isinstance(module, Squeeze) for module in checkpoint.model.vision.modules())
    assert kinds["Erf"] <= squeezes  # what is weighed by a squeeze is small, and not fused
    assert kinds["Gelu"] + kinds["BiasGelu"] > squeezes


@pytest.mark.slow
def test_immich_and_zero_shot_pipelines_get_the_embeddings_of_the_runtime(
    checkpoint: Checkpoint, once: MadeOnce, tmp_path: Path
):
    with exported(checkpoint, once, "int8") as clip:
        write_model_folder(clip.bundle, tmp_path)
        input_ids = checkpoint.tokenizer(TEXTS)
        textual = onnxruntime.InferenceSession(str(tmp_path / "textual" / "model.onnx"))
        (embedding,) = textual.run(None, {"text": input_ids[:1].astype(np.int32)})
        np.testing.assert_allclose(embedding, clip.encode_text(TEXTS[:1]), atol=1e-5)
        pixels = checkpoint.preprocess(PICTURES[0]).numpy()[None]
        visual = onnxruntime.InferenceSession(str(tmp_path / "visual" / "model.onnx"))
        np.testing.assert_allclose(visual.run(None, {"image": pixels})[0], clip.encode_image(PICTURES[:1]), atol=1e-5)
        both = onnxruntime.InferenceSession(str(clip.bundle.folder / "onnx" / "model_quantized.onnx"))
        logits, _, texts, images = both.run(None, {"pixel_values": pixels, "input_ids": input_ids})
        np.testing.assert_allclose(logits, clip.logit_scale * images @ texts.T, atol=1e-4)


@torch.no_grad()
def test_the_twin_of_large_channels_is_close_once_it_is_equalized(checkpoint: Checkpoint):
    pixels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    tower = exported_image_tower(outlier_twin(checkpoint.model))
    exact = tower(pixels)
    torch.testing.assert_close(exact, checkpoint.model.encode_image(pixels), atol=1e-4, rtol=0)
    layers = [name for name, m in tower.named_modules() if isinstance(m, torch.nn.Linear) and "projection" not in name]

    def loss() -> float:
        with fake_quantized(tower, layers):
            return 1 - torch.nn.functional.cosine_similarity(tower(pixels), exact).mean().item()

    before = loss()
    assert equalize(pairs_of_tower(tower), lambda: tower(pixels))
    pair_inputs_of_tower(tower)
    torch.testing.assert_close(tower(pixels), exact, atol=1e-4, rtol=0)
    assert loss() < min(0.5 * before, 0.005)
