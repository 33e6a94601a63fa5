"""Bundles from other programs' float graphs: int8, in a bundle's form, and close to what transformers computes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from transformers import CLIPModel

import edgeclip
from edgeclip.bundle import read_bundle
from edgeclip.errors import BundleError, EdgeclipError
from edgeclip.manifest import SCHEMA, Manifest
from edgeclip.quantize.scheme import PAIR_LIMIT
from edgeclip.runtime import self_test
from tests.foreign_folders import TEXTS, expected_images, expected_texts
from tests.once import MadeOnce

FEW = {"samples": 6, "workers": 0, "threads": 1}
SCALE = {"logit_scale": 50.0}


@pytest.fixture(scope="module")
def exported(foreign_folders: dict[str, Path], once: MadeOnce) -> dict[str, Path]:
    def make(folder: Path) -> None:
        for name in ("transformers.js", "immich", "both"):
            told = {} if name == "transformers.js" else SCALE
            edgeclip.export(foreign_folders[name], folder / name, precision="int8", **FEW, **told)
        edgeclip.export(foreign_folders["immich"], folder / "fp32", precision="fp32", **FEW, **SCALE)

    folder = once("foreign bundles", make)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50 + i, 3), dtype=np.uint8)) for i in range(3)]


@pytest.mark.parametrize("name", ["transformers.js", "immich", "both"])
def test_int8_of_every_layout(
    exported: dict[str, Path],
    foreign_folders: dict[str, Path],
    foreign_clip: CLIPModel,
    images: list[Image.Image],
    name: str,
):
    """Also in batches, where the graph takes one item of one length alone."""
    clip = edgeclip.load(exported[name], threads=1)
    assert isinstance(clip.bundle.manifest, Manifest)
    for batch_size in (1, 3):
        image_embeds, text_embeds = clip.encode_image(images, batch_size=batch_size), clip.encode_text(TEXTS)
        cosines = (image_embeds * expected_images(foreign_clip, images)).sum(axis=1)
        assert cosines.min() > 0.998
        cosines = (text_embeds * expected_texts(foreign_clip, foreign_folders[name], TEXTS)).sum(axis=1)
        assert cosines.min() > 0.998
        np.testing.assert_allclose(np.linalg.norm(image_embeds, axis=1), 1, atol=1e-6)
    assert clip.bundle.manifest.card.is_close
    assert min(self_test(clip).values()) > 0.9999


def test_fp32_is_what_it_was(
    exported: dict[str, Path],
    foreign_folders: dict[str, Path],
    foreign_clip: CLIPModel,
    images: list[Image.Image],
):
    clip = edgeclip.load(exported["fp32"], threads=1)
    np.testing.assert_allclose(clip.encode_image(images), expected_images(foreign_clip, images), atol=2e-6)
    expected = expected_texts(foreign_clip, foreign_folders["immich"], TEXTS)
    np.testing.assert_allclose(clip.encode_text(TEXTS), expected, atol=2e-6)


def test_the_bundle_s_names_whatever_theirs_were(exported: dict[str, Path]):
    for name in ("immich", "transformers.js"):
        bundle = read_bundle(exported[name])
        for path, given, output in (
            (bundle.graph("image"), "pixel_values", "image_embeds"),
            (bundle.graph("text"), "input_ids", "text_embeds"),
        ):
            graph = onnx.load(path)
            onnx.checker.check_model(graph)
            assert [value.name for value in graph.graph.input] == [given]
            assert [value.name for value in graph.graph.output] == [output]
            assert graph.graph.input[0].type.tensor_type.elem_type == (7 if given == "input_ids" else 1)


def test_a_mask_is_no_longer_asked_for(
    exported: dict[str, Path], foreign_folders: dict[str, Path], foreign_clip: CLIPModel
):
    """fastembed's text graphs have one; what it hides stands behind the end of a text."""
    clip = edgeclip.load(exported["both"], threads=1)
    found = clip.encode_text(TEXTS, batch_size=3)
    assert (found * expected_texts(foreign_clip, foreign_folders["both"], TEXTS)).sum(axis=1).min() > 0.998


def test_what_is_int8_and_how(exported: dict[str, Path]):
    """Every large weight is bytes; those that are multiplied so cannot saturate sums of 16 bits."""
    bundle = read_bundle(exported["transformers.js"])
    for path in (bundle.graph("image"), bundle.graph("text")):
        graph = onnx.load(path).graph
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        assert [name for name, array in weights.items() if array.dtype == np.float32 and array.size > 1024] == []
        multiplied = [weights[node.input[1]] for node in graph.node if node.op_type == "MatMulInteger"]
        assert len(multiplied) == 12  # of two blocks: query, key, value, out, fc1, fc2
        for weight_KN in multiplied:
            pairs_PN = weight_KN.astype(np.int16).reshape(-1, 2, weight_KN.shape[1]).sum(axis=1)
            assert np.abs(weight_KN.astype(np.int16)).max() > PAIR_LIMIT // 2  # more than 7 bits
            assert np.abs(pairs_PN).max() <= PAIR_LIMIT
        assert bundle.manifest.schema == SCHEMA
        assert bundle.needs_proof
        rounded = [node for node in graph.node if node.op_type == "DynamicQuantizeLinear"]
        assert len(rounded) == 8  # query, key and value share one


def test_the_configuration_is_the_models(exported: dict[str, Path], foreign_clip: CLIPModel):
    for name in ("transformers.js", "immich", "both"):
        config = read_bundle(exported[name]).config
        theirs = foreign_clip.config
        assert config.projection_dim == theirs.projection_dim
        assert config.text.vocab_size == theirs.text_config.vocab_size
        assert config.vision.hidden_size == theirs.vision_config.hidden_size
        assert config.vision.intermediate_size == theirs.vision_config.intermediate_size


def test_both_towers_in_one_graph_too(foreign_folders: dict[str, Path], tmp_path: Path):
    manifest, _ = edgeclip.export(foreign_folders["transformers.js"], tmp_path / "out", combined_graph=True, **FEW)
    assert "onnx/model_quantized.onnx" in manifest.files
    assert manifest.logit_scale == pytest.approx(4.2, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("immich", {}, "don't tell the logit scale"),
        ("image", SCALE, "which has no text tower"),
        ("text", SCALE, "which has no image tower"),
        ("immich", SCALE | {"layout": "immich"}, "`layout` immich for another program's graphs"),
        ("immich", {"logit_scale": -1.0}, "`logit_scale`"),
        ("immich", SCALE | {"fuse_tokens": "50%"}, "`fuse_tokens` for another program's graphs"),
    ],
)
def test_what_cannot_become_a_bundle(
    foreign_folders: dict[str, Path], tmp_path: Path, name: str, settings: dict[str, object], message: str
):
    with pytest.raises(EdgeclipError, match=message):
        edgeclip.export(foreign_folders[name], tmp_path / "out", **FEW, **settings)
    assert not (tmp_path / "out").exists()


def test_graphs_that_are_no_longer_float(copied: Callable[[str], Path], tmp_path: Path):
    folder = copied("transformers.js")
    (folder / "onnx" / "vision_model.onnx").unlink()
    with pytest.raises(EdgeclipError, match=r"vision_model_fp16\.onnx in fp16; expected a graph in fp32"):
        edgeclip.export(folder, tmp_path / "out", **FEW)


@pytest.mark.parametrize(
    ("part", "key", "value"), [("vision_config", "patch_size", 8), ("vision_config", "hidden_size", 32),
                               ("text_config", "vocab_size", 600)],
)  # fmt: skip
def test_a_configuration_of_another_model(
    copied: Callable[[str], Path], tmp_path: Path, part: str, key: str, value: int
):
    folder = copied("transformers.js")
    config = json.loads((folder / "config.json").read_text())
    config[part][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EdgeclipError, match=rf"config\.json with .*{key}.*as the graphs have"):
        edgeclip.export(folder, tmp_path / "out", **FEW)


def test_weights_that_are_not_finite_are_named(copied: Callable[[str], Path], tmp_path: Path):
    path = copied("transformers.js") / "onnx" / "vision_model.onnx"
    model = onnx.load(path)
    (tensor, *_) = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1)
    broken = numpy_helper.to_array(tensor).copy()
    broken.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(broken, tensor.name))
    onnx.save_model(model, path)
    with pytest.raises(
        BundleError, match=rf"vision_model\.onnx, whose {re.escape(tensor.name)} is not finite; expected"
    ):
        edgeclip.export(path.parents[1], tmp_path / "out", **FEW)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_has_its_own_logit_scale(mini_checkpoint: Path, tmp_path: Path):
    with pytest.raises(EdgeclipError, match="`logit_scale` for"):
        edgeclip.export(mini_checkpoint, tmp_path / "out", **FEW, **SCALE)


def test_on_the_command_line(
    edgeclip_here: Callable[..., CompletedProcess[str]], foreign_folders: dict[str, Path], tmp_path: Path
):
    options = ("--samples", "6", "--workers", "0", "--threads", "1", "--logit-scale", "50")
    done = edgeclip_here("export", foreign_folders["both"], "--out", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    assert edgeclip_here("verify", tmp_path / "out").returncode == 0
