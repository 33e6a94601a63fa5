"""The engine that runs a bundle's graphs: the one that is asked for, or chosen, or ONNX Runtime with a warning."""

import logging
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeclip
from edgeclip.bundle import read_bundle, sealed
from edgeclip.errors import BundleError, ConfigError
from edgeclip.files import as_json
from edgeclip.manifest import MANIFEST
from edgeclip.runtime import engine
from edgeclip.runtime.openvino_session import OpenVinoSession
from edgeclip.runtime.session import LazySession

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3), dtype=np.uint8)
TEXTS = ["a red ball", "two blue boxes to the left of a green star"]


@pytest.fixture
def chosen_for_openvino(bundles: dict[str, Path], tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(bundles["int8"], tmp_path / "chosen"))
    manifest = msgspec.structs.replace(read_bundle(folder).manifest, engine="openvino")
    (folder / MANIFEST).write_bytes(as_json(sealed(manifest)))
    return folder


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    monkeypatch.setattr(engine, "cpu_flags", lambda: {"avx2", "avx_vnni"})


@pytest.mark.usefixtures("vnni")
def test_openvino_gives_what_onnx_runtime_gives_one_by_one_together_and_from_threads(bundles: dict[str, Path]):
    ours = edgeclip.load(bundles["fp32"], threads=1, cache=None)
    with edgeclip.load(bundles["fp32"], threads=1, cache=None, engine="openvino") as theirs:
        assert (ours.engine, theirs.engine) == ("onnxruntime", "openvino")
        expected = ours.encode_image(PICTURES)
        np.testing.assert_allclose(theirs.encode_image(PICTURES), expected, atol=1e-5)
        np.testing.assert_allclose(theirs.encode_image(PICTURES, batch_size=3), expected, atol=1e-5)
        np.testing.assert_allclose(theirs.encode_text(TEXTS), ours.encode_text(TEXTS), atol=1e-5)
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(theirs.encode_image, [picture[None] for picture in PICTURES] * 4))
        np.testing.assert_allclose(np.concatenate(rows), np.tile(expected, (4, 1)), atol=1e-5)
        assert "openvino" in repr(theirs)
        assert pickle.loads(pickle.dumps(theirs)).engine == "openvino"


@pytest.mark.usefixtures("vnni")
def test_a_bundle_runs_in_the_engine_that_it_was_chosen_for(chosen_for_openvino: Path):
    chosen = edgeclip.load(chosen_for_openvino, threads=1, cache=None)
    assert chosen.engine == "openvino"
    asked = edgeclip.load(chosen_for_openvino, threads=1, cache=None, engine="onnxruntime")
    assert asked.engine == "onnxruntime"
    assert (chosen.encode_image(PICTURES) * asked.encode_image(PICTURES)).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("lacks", ["the package", "the processor's instructions"])
def test_where_openvino_cannot_be_used_the_choice_falls_back_and_says_so_and_a_demand_is_refused(
    chosen_for_openvino: Path, lacks: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(engine, "find_spec", lambda name: None if lacks == "the package" else object())
    monkeypatch.setattr(engine, "cpu_flags", lambda: {"avx2"})
    reason = 'pip install "edgeclip[openvino]"' if lacks == "the package" else "no VNNI"
    with caplog.at_level(logging.WARNING):
        clip = edgeclip.load(chosen_for_openvino, threads=1, cache=None)
    assert clip.engine == "onnxruntime"
    assert clip.encode_text("a red ball").shape[0] == 1
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith(f"{chosen_for_openvino} was chosen for OpenVINO and runs in ONNX Runtime")
    assert reason in warning
    with pytest.raises(ConfigError, match="give `engine` onnxruntime") as refused:
        edgeclip.load(chosen_for_openvino, engine="openvino")
    assert reason in str(refused.value)


def test_an_unknown_engine_is_refused(bundles: dict[str, Path]):
    with pytest.raises(ConfigError, match="`engine` 'tvm'; expected onnxruntime or openvino; leave out `engine`"):
        edgeclip.load(bundles["fp32"], engine="tvm")


@pytest.mark.usefixtures("vnni")
def test_what_is_no_graph_is_one_line(bundles: dict[str, Path], tmp_path: Path):
    damaged, empty = tmp_path / "damaged.onnx", tmp_path / "empty.onnx"
    damaged.write_bytes(b"hello")
    empty.touch()
    with pytest.raises(BundleError, match=r"\(Model can't be parsed\); expected an ONNX graph; copy it again"):
        LazySession(damaged, 1, OpenVinoSession).run(PICTURES)
    with pytest.raises(BundleError, match="expected a graph of this bundle"):
        LazySession(empty, 1, OpenVinoSession).run(PICTURES)
    whole = LazySession(read_bundle(bundles["fp32"]).graphs["image"], 1, OpenVinoSession)
    with pytest.raises(BundleError, match=r"with a batch of shape \(1, 4, 2, 2\)"):
        whole.run(np.zeros((1, 4, 2, 2), np.float32))


@pytest.mark.usefixtures("vnni")
def test_weights_are_read_from_no_other_folder(tmp_path: Path):
    weights = numpy_helper.from_array(np.ones(4096, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4096])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4096])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "bundle").mkdir()
    onnx.save_model(model, tmp_path / "bundle" / "g.onnx", save_as_external_data=True, location="w.bin")
    OpenVinoSession(tmp_path / "bundle" / "g.onnx", 1)
    (tmp_path / "bundle" / "w.bin").rename(tmp_path / "w.bin")
    (entry,) = (entry for entry in model.graph.initializer[0].external_data if entry.key == "location")
    for place in ("../w.bin", str(tmp_path / "w.bin")):
        entry.value = place
        (tmp_path / "bundle" / "g.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(RuntimeError, match="outside the base directory"):
            OpenVinoSession(tmp_path / "bundle" / "g.onnx", 1)


@pytest.mark.usefixtures("vnni")
def test_sizes_that_are_free_are_told_as_such(bundles: dict[str, Path]):
    session = OpenVinoSession(read_bundle(bundles["fp32"]).graphs["image"], 1)
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[:2], output.name) == ("pixel_values", [None, 3], "image_embeds")
