"""The graph with both towers, against the towers' own graphs and against transformers."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import CLIPModel

from edgeclip.bundle import Bundle, entries, fingerprint, verify_files
from edgeclip.errors import ConfigError
from edgeclip.export.combined_graph import write_combined_graph
from edgeclip.manifest import COMBINED_GRAPHS, GRAPHS

NAMES = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
PIXELS = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
TEXTS = ["a red ball", "two blue boxes on the table"]


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)


def combined_graph(bundle: Bundle) -> Path:
    return bundle.folder / COMBINED_GRAPHS[bundle.manifest.precision]


def test_the_joint_graph_has_the_towers_bits(joint_bundle: Bundle):
    input_ids = joint_bundle.tokenizer(TEXTS, pad_to_longest=True)
    per_image, per_text, text, image = run(combined_graph(joint_bundle), input_ids=input_ids, pixel_values=PIXELS)
    np.testing.assert_array_equal(image, run(joint_bundle.graph("image"), pixel_values=PIXELS)[0])
    np.testing.assert_array_equal(text, run(joint_bundle.graph("text"), input_ids=input_ids)[0])
    logit_scale = joint_bundle.manifest.logit_scale
    assert logit_scale == pytest.approx(1 / 0.07, rel=1e-4)  # CLIP's initial temperature
    np.testing.assert_allclose(per_image, logit_scale * image @ text.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(per_text, per_image.T)


def test_names_are_optimums_and_batches_are_independent(joint_bundle: Bundle):
    session = onnxruntime.InferenceSession(str(combined_graph(joint_bundle)), providers=["CPUExecutionProvider"])
    assert {i.name: (i.type, i.shape) for i in session.get_inputs()} == {
        "input_ids": ("tensor(int64)", ["texts", "tokens"]),
        "pixel_values": ("tensor(float)", ["images", 3, 32, 32]),
    }
    assert [o.name for o in session.get_outputs()] == NAMES


@pytest.mark.parametrize("joint_bundle", ["fp32"], indirect=True)
def test_logits_equal_transformers(joint_bundle: Bundle, mini_checkpoint: Path):
    input_ids = joint_bundle.tokenizer(TEXTS)
    outputs = run(combined_graph(joint_bundle), input_ids=input_ids, pixel_values=PIXELS)
    model = CLIPModel.from_pretrained(mini_checkpoint).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.from_numpy(input_ids), pixel_values=torch.from_numpy(PIXELS))
    for name, output in zip(NAMES, outputs, strict=True):
        np.testing.assert_allclose(output, expected[name].numpy(), atol=2e-5)


def test_the_fingerprint_is_the_one_without_it(joint_bundle: Bundle, tmp_path: Path):
    copy = Path(shutil.copytree(joint_bundle.folder, tmp_path / "copy"))
    (copy / COMBINED_GRAPHS[joint_bundle.manifest.precision]).unlink()
    files = entries(copy)
    assert fingerprint(files) == joint_bundle.manifest.fingerprint
    assert joint_bundle.manifest.files.keys() - files.keys() == {COMBINED_GRAPHS[joint_bundle.manifest.precision]}
    verify_files(joint_bundle)
    changed = files | {GRAPHS[joint_bundle.manifest.precision][1]: files["config.json"]}
    assert fingerprint(changed) != joint_bundle.manifest.fingerprint


def test_towers_too_large_for_one_file_are_refused(
    joint_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgeclip.export.combined_graph.MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="limit of an ONNX file"):
        write_combined_graph(
            joint_bundle.graph("image"), joint_bundle.graph("text"), tmp_path / "joint.onnx", logit_scale=1.0
        )
    assert not list(tmp_path.iterdir())
