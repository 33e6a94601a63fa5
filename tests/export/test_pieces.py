"""The three pieces of an export, each alone: float graphs, int8 graphs of them, and what is measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgeclip.bundle import entries, read_bundle
from edgeclip.checkpoint import Checkpoint
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.float_graphs import FloatGraphs, write_float_graphs
from edgeclip.export.int8_graphs import Int8Graphs, float_layers_of
from edgeclip.export.measure import card_on, measured, open_draft
from edgeclip.export.samples import Samples
from edgeclip.manifest import GRAPHS
from edgeclip.model.outliers import outlier_twin

FP32, INT8 = GRAPHS["fp32"], GRAPHS["int8"]


def folder_for(path: Path) -> Path:
    (path / "onnx").mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def exports() -> list[str]:
    """The towers that the exporter was called for."""
    return []


@pytest.fixture(scope="module")
def floats(
    checkpoint: Checkpoint, few_pairs: Samples, tmp_path_factory: pytest.TempPathFactory, exports: list[str]
) -> FloatGraphs:
    """Of the small model's twin, equalized."""
    folder = folder_for(tmp_path_factory.mktemp("floats"))
    twin = replace(checkpoint, model=outlier_twin(checkpoint.model))
    export = torch.onnx.export

    def counted(tower: torch.nn.Module, *args: object, **options: object) -> object:
        exports.append(type(tower).__name__)
        return export(tower, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", counted)
        return write_float_graphs(twin, folder, calibrate=few_pairs.calibrate)


def run(path: Path, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def integer_products(path: Path) -> int:
    return sum(node.op_type == "MatMulInteger" for node in onnx.load_model(path).graph.node)


@torch.no_grad()
def test_float_graphs_are_the_equalized_towers_and_compute_what_the_model_does(
    checkpoint: Checkpoint, few_pairs: Samples, floats: FloatGraphs
):
    assert floats.image.alphas
    assert floats.text.alphas
    images = image_batches(few_pairs.choose, checkpoint.preprocess_config)[0]
    texts = text_batches(few_pairs.choose, checkpoint.tokenizer)[0]
    for tower, batch, encode in (
        (floats.image, images, checkpoint.model.encode_image),
        (floats.text, texts, checkpoint.model.encode_text),
    ):
        np.testing.assert_allclose(run(tower.graph, batch.numpy()), tower.tower(batch).numpy(), atol=2e-6)
        np.testing.assert_allclose(run(tower.graph, batch.numpy()), encode(batch).numpy(), atol=1e-5)


def test_without_pairs_to_calibrate_on_the_graphs_are_those_of_the_fp32_bundle(
    checkpoint: Checkpoint, bundles: dict[str, Path], tmp_path: Path
):
    floats = write_float_graphs(checkpoint, folder_for(tmp_path))
    assert floats.image.alphas == floats.text.alphas == {}
    for name in FP32:
        assert (tmp_path / name).read_bytes() == (bundles["fp32"] / name).read_bytes()


def test_many_int8_graphs_of_one_float_graph(floats: FloatGraphs, exports: list[str], tmp_path: Path):
    """The exporter was called once for each tower, however many are written, and no graph is changed by another."""
    variants = Int8Graphs(floats)
    choices = [[], ["image: last.query"], ["image: blocks.0.mlp.fc1", "image: last.query", "text: last.mlp.fc2"], []]
    found = []
    for number, choice in enumerate(choices):
        variants.write(folder_for(tmp_path / str(number)), choice)
        found.append([integer_products(tmp_path / str(number) / name) for name in INT8])
    assert exports == ["ExportedImageTower", "ExportedTextTower"]
    assert found == [[10, 9], [9, 9], [8, 8], [10, 9]]
    for name in INT8:
        first, last = ((tmp_path / number / name).read_bytes() for number in "03")
        assert first == last


def test_layers_that_int8_costs_too_much_are_named_by_tower(
    floats: FloatGraphs, few_pairs: Samples, monkeypatch: pytest.MonkeyPatch
):
    assert float_layers_of(floats, few_pairs.choose) == []
    before = {name: value.clone() for name, value in floats.text.tower.state_dict().items()}
    monkeypatch.setattr("edgeclip.export.int8_graphs.CHOICE_MIN_COSINE", 1.1)
    layers = float_layers_of(floats, few_pairs.choose)
    assert [name.split(": ")[0] for name in layers] == ["image"] * 2 + ["text"] * 2
    for name, tower in (layer.split(": ")[::-1] for layer in layers):
        assert isinstance(getattr(floats, tower).tower.get_submodule(name), torch.nn.Linear)
    assert all(torch.equal(value, before[name]) for name, value in floats.text.tower.state_dict().items())


def test_a_draft_is_opened_and_measured(checkpoint: Checkpoint, few_pairs: Samples, bundles: dict[str, Path]):
    """A finished bundle's folder is as good as any: its manifest comes out again."""
    finished = read_bundle(bundles["int8"])
    draft = open_draft(checkpoint, bundles["int8"], "int8", finished.manifest.float_layers, threads=1)
    manifest, card = measured(draft, checkpoint, few_pairs)
    assert (manifest, card) == (finished.manifest, finished.manifest.card)
    assert manifest.files == entries(bundles["int8"])
    chosen_on = card_on(few_pairs.choose, checkpoint, draft, few_pairs)
    assert (chosen_on.pairs, card.pairs) == (len(few_pairs.choose), len(few_pairs.measure))


def test_batches_hold_every_pair_and_no_padding(checkpoint: Checkpoint, few_pairs: Samples):
    images = image_batches(few_pairs.choose, checkpoint.preprocess_config)
    alone = torch.stack([checkpoint.preprocess(pixels) for pixels in few_pairs.choose.pixels])
    assert torch.equal(torch.cat(images), alone)
    texts = text_batches(few_pairs.choose, checkpoint.tokenizer)
    ids = [row.tolist() for batch in texts for row in batch]
    assert sorted(ids) == sorted(checkpoint.tokenizer.token_ids(few_pairs.choose.first_captions))
    assert len({len(row) for row in ids}) <= len(texts) < len(ids)
