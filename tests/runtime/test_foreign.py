"""Graphs of other programs without torch: what transformers computes, and what is wrong with a folder in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import external_data_helper, helper
from PIL import Image
from transformers import CLIPModel

import edgeclip
from edgeclip.errors import BundleError, CheckpointError, ConfigError, EdgeclipError, TokenizerError
from edgeclip.runtime import foreign, graph_cache, known_hashes
from edgeclip.search import Index
from tests.foreign_folders import (
    LOGIT_SCALE,
    SIDE,
    TEXTS,
    expected_images,
    expected_texts,
    ids_of,
)
from tests.test_hub import Hub, load


@pytest.fixture(scope="session")
def model(foreign_clip: CLIPModel) -> CLIPModel:
    return foreign_clip


@pytest.fixture(scope="session")
def folders(foreign_folders: dict[str, Path]) -> dict[str, Path]:
    return foreign_folders


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50 + i, 3), dtype=np.uint8)) for i in range(3)]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("name", ["transformers.js", "immich", "both"])
def test_every_layout_gives_what_transformers_gives(
    folders: dict[str, Path],
    model: CLIPModel,
    images: list[Image.Image],
    name: str,
    batch_size: int,
):
    """Also in batches, where a graph takes one image, or texts of one length, alone."""
    clip = edgeclip.load(folders[name], threads=1)
    found = clip.encode_image(images, batch_size=batch_size)
    np.testing.assert_allclose(found, expected_images(model, images), atol=2e-6)
    found = clip.encode_text(TEXTS, batch_size=batch_size)
    np.testing.assert_allclose(found, expected_texts(model, folders[name], TEXTS), atol=2e-6)
    assert (clip.embedding_size, clip.bundle.precision, clip.towers) == (16, "fp32", ["image", "text"])


def test_a_long_text_is_cut_as_transformers_cuts_it(folders: dict[str, Path], model: CLIPModel):
    text = "a red ball " * 30
    for name in ("transformers.js", "immich", "text"):
        found = edgeclip.load(folders[name], threads=1).encode_text(text)
        np.testing.assert_allclose(found, expected_texts(model, folders[name], [text]), atol=2e-6)


@pytest.mark.parametrize(("precision", "says", "tolerance"), [("q8", "int8", 0.05), ("fp16", "fp16", 5e-3)])
def test_a_precision_that_is_asked_for(
    folders: dict[str, Path], model: CLIPModel, images: list[Image.Image], precision: str, says: str, tolerance: float
):
    """fp16 graphs take and give float16."""
    clip = edgeclip.load(folders["transformers.js"], threads=1, precision=precision)
    assert clip.bundle.precision == says
    assert says in repr(clip)
    found = clip.encode_image(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected_images(model, images), atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_without_one_the_most_exact_of_each_tower_is_opened(copied: Callable[[str], Path]):
    folder = copied("transformers.js")
    (folder / "onnx" / "vision_model.onnx").unlink()
    (folder / "onnx" / "text_model.onnx").unlink()
    (folder / "onnx" / "text_model_fp16.onnx").unlink()
    clip = edgeclip.load(folder, threads=1)
    assert clip.bundle.precision == "fp16 image, int8 text"
    with pytest.raises(
        BundleError, match=r"text_model\.onnx, but not in the precision fp16; expected one that is there: q8"
    ):
        edgeclip.load(folder, precision="fp16")
    with pytest.raises(ConfigError, match="`precision` 'half'; expected fp32 or fp16 or q8"):
        edgeclip.load(folder, precision="half")


def test_quantized_graphs_give_what_onnx_runtime_gives(folders: dict[str, Path]):
    folder = folders["transformers.js"]
    clip = edgeclip.load(folder, threads=1, precision="q8")
    session = onnxruntime.InferenceSession(folder / "onnx" / "text_model_quantized.onnx")
    ids = np.array([ids_of(folder, TEXTS[0])])
    (embeds,) = session.run(None, {"input_ids": ids})
    np.testing.assert_allclose(clip.encode_text(TEXTS[0]), embeds / np.linalg.norm(embeds), atol=1e-6)


def test_one_tower_refuses_what_is_of_the_other(folders: dict[str, Path], images: list[Image.Image], tmp_path: Path):
    image, text = (edgeclip.load(folders[kind], threads=1) for kind in ("image", "text"))
    assert image.encode_image(images).shape == (3, 16)
    assert text.encode_text(TEXTS).shape == (3, 16)
    with pytest.raises(BundleError, match=r"which has no text tower;.*\+TEXT"):
        image.encode_text("a")
    for call in (text.encode_image, lambda image: list(text.stream_images(image))):
        with pytest.raises(BundleError, match=r"which has no image tower;.* as IMAGE\+"):
            call(images[:1])
    assert "texts of" not in repr(image)
    image.close()
    assert image.closed
    with pytest.raises(BundleError, match="closed"):
        image.encode_image(images)
    images[0].save(tmp_path / "a.png")
    with Index.open(tmp_path / "db", edgeclip.load(folders["image"], threads=1)) as index:
        index.add([tmp_path / "a.png"])
        assert index.search(images[0]).results[0].path.endswith("a.png")
        with pytest.raises(BundleError, match="no text tower"):
            index.search("a red ball")


def test_a_tokenizer_of_another_model(copied: Callable[[str], Path]):
    folder = copied("text")
    edgeclip.load(folder, cache=None).encode_text("a")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config.get("text_config") or config)["eos_token_id"] = 7
    path.write_text(json.dumps(config))
    with pytest.raises(
        BundleError, match=r"pools token 7, where tokenizer.json ends texts with another; expected token"
    ):
        edgeclip.load(folder, cache=None).encode_text("a")


class TestLogitScale:
    def test_it_is_read_from_the_graph_of_both_towers(
        self, folders: dict[str, Path], images: list[Image.Image], copied: Callable[[str], Path]
    ):
        clip = edgeclip.load(folders["transformers.js"], threads=1)
        assert clip.logit_scale == pytest.approx(LOGIT_SCALE, rel=1e-6)
        (labels,) = clip.classify(images[0], ["ball", "box"], template="{}")
        cosines = clip.encode_text(["ball", "box"]) @ clip.encode_image(images[0])[0]
        odds = np.exp(LOGIT_SCALE * cosines)
        assert {label.name: label.probability for label in labels} == pytest.approx(
            dict(zip(["ball", "box"], odds / odds.sum(), strict=True)), abs=1e-5
        )

    def test_the_starting_value_of_a_configuration_is_not_it(self, folders: dict[str, Path], images: list[Image.Image]):
        config = json.loads((folders["both"] / "text" / "config.json").read_text())
        assert "logit_scale_init_value" not in config or config["logit_scale_init_value"] == 2.6592
        clip = edgeclip.load(folders["both"], threads=1)
        with pytest.raises(BundleError, match=r"don't tell the logit scale;.*give `logit_scale`"):
            clip.classify(images[0], ["ball", "box"])
        told = edgeclip.load(folders["both"], threads=1, logit_scale=50)
        assert told.logit_scale == 50
        assert len(told.classify(images[0], ["ball", "box"])[0]) == 2

    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), 1e9])
    def test_one_that_none_has(self, folders: dict[str, Path], value: float):
        with pytest.raises(ConfigError, match="`logit_scale`"):
            edgeclip.load(folders["both"], logit_scale=value)

    def test_a_bundle_has_its_own(self, bundles: dict[str, Path]):
        for given in ({"logit_scale": 50.0}, {"precision": "fp32"}):
            with pytest.raises(ConfigError, match=f"`{next(iter(given))}` for .*, a bundle"):
                edgeclip.load(bundles["int8"], **given)


class TestFingerprint:
    def test_it_is_of_the_content_of_all_that_decides(self, folders: dict[str, Path], copied: Callable[[str], Path]):
        folder = copied("transformers.js")
        first = edgeclip.load(folders["transformers.js"]).bundle.fingerprint
        assert edgeclip.load(folder).bundle.fingerprint == first
        assert edgeclip.load(folder, precision="q8").bundle.fingerprint != first
        (folder / "README.md").write_text("no part of it")
        (folder / "onnx" / "model.onnx").unlink()
        assert edgeclip.load(folder).bundle.fingerprint == first
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
        assert edgeclip.load(folder).bundle.fingerprint != first

    def test_an_index_does_not_mix_two(self, folders: dict[str, Path], images: list[Image.Image], tmp_path: Path):
        images[0].save(tmp_path / "a.png")
        with Index.open(tmp_path / "db", folders["transformers.js"]) as index:
            index.add([tmp_path / "a.png"])
            assert index.search("a red ball").results[0].path.endswith("a.png")
        with Index.open(tmp_path / "db") as index:
            assert index.clip.bundle.folder == folders["transformers.js"].resolve()
        with pytest.raises(edgeclip.DataError, match="made with the bundle of the fingerprint"):
            Index.open(tmp_path / "db", edgeclip.load(folders["transformers.js"], precision="q8"))

    def test_hashes_of_large_files_are_kept_while_the_files_stay(
        self, copied: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(known_hashes, "MIN_BYTES", 0)
        folder, cache = copied("image"), tmp_path / "cache"
        first = edgeclip.load(folder, cache=cache).bundle.fingerprint
        read: list[Path] = []
        hashed = known_hashes.file_entry
        monkeypatch.setattr(known_hashes, "file_entry", lambda path: read.append(path) or hashed(path))
        assert edgeclip.load(folder, cache=cache).bundle.fingerprint == first
        assert read == []
        graph = folder / "model.onnx"
        state, data = graph.stat(), bytearray(graph.read_bytes())
        data[-1] ^= 1
        graph.write_bytes(data)
        os.utime(graph, ns=(state.st_atime_ns, state.st_mtime_ns))  # as who hides it would
        assert edgeclip.load(folder, cache=cache).bundle.fingerprint != first
        assert read == [graph]

    def test_pickled_it_comes_back_as_it_was(self, copied: Callable[[str], Path]):
        folder = copied("transformers.js")
        clip = edgeclip.load(folder, threads=1, precision="q8", logit_scale=7)
        again = pickle.loads(pickle.dumps(clip))
        assert (again.bundle.precision, again.logit_scale) == ("int8", 7)
        np.testing.assert_array_equal(again.encode_text("a"), clip.encode_text("a"))
        (folder / "onnx" / "text_model_quantized.onnx").write_bytes((folder / "onnx" / "text_model.onnx").read_bytes())
        with pytest.raises(BundleError, match="the one that was pickled"):
            pickle.loads(pickle.dumps(clip))


def test_opened_graphs_are_kept_by_content(
    copied: Callable[[str], Path], images: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graph_cache, "MIN_BYTES", 0)
    folder, cache = copied("transformers.js"), tmp_path / "cache"
    expected = edgeclip.load(folder, threads=1, cache=None).encode_image(images)
    np.testing.assert_array_equal(edgeclip.load(folder, threads=1, cache=cache).encode_image(images), expected)
    assert len(list((cache / "graphs").iterdir())) == 1
    graph = folder / "onnx" / "vision_model.onnx"
    graph.write_bytes((folder / "onnx" / "vision_model_quantized.onnx").read_bytes())
    other = edgeclip.load(folder, threads=1, cache=cache).encode_image(images)
    assert np.abs(other - expected).max() > 1e-4
    assert len(list((cache / "graphs").iterdir())) == 2


def test_it_needs_neither_torch_nor_onnx(folders: dict[str, Path]):
    script = """
import sys, edgeclip
clip = edgeclip.load(sys.argv[1], threads=1)
print(clip.encode_text("a").shape, sorted({"torch", "transformers", "onnx"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, folders["transformers.js"]], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(1, 16) []\n"


def test_there_is_nothing_to_verify_against(folders: dict[str, Path], mistake: Callable[..., str]):
    line = mistake("verify", folders["immich"])
    assert "graphs of immich, with nothing to verify against" in line
    assert "edgeclip export" in line


def rewritten(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    graph = onnx.load(path)
    change(graph)
    onnx.save_model(graph, path)


def _renamed(kind: str, name: str) -> Callable[[onnx.ModelProto], None]:
    def rename(graph: onnx.ModelProto) -> None:
        (old,) = (value.name for value in getattr(graph.graph, kind))
        for node in graph.graph.node:
            node.input[:] = [name if item == old else item for item in node.input]
            node.output[:] = [name if item == old else item for item in node.output]
        getattr(graph.graph, kind)[0].name = name

    return rename


def _typed(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _wide(graph: onnx.ModelProto) -> None:
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2**40


def _second_input(graph: onnx.ModelProto) -> None:
    graph.graph.input.append(helper.make_tensor_value_info("pixel_mask", onnx.TensorProto.FLOAT, [1]))


class TestWhatIsWrongWithAGraph:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (_renamed("output", "last_hidden_state"), r"outputs last_hidden_state float32 \(\?, 16\).*image_embeds or"),
            (_renamed("input", "x"), r"inputs x float32 \(\?, 3, 32, 32\); expected.*pixel_values or image"),
            (_typed, r"inputs pixel_values uint8"),
            (_second_input, r"inputs pixel_values .*, pixel_mask"),
            (_wide, "of whose embedding size the image graph says 1099511627776, the text graph says 16"),
        ],
    )
    def test_its_ports(self, copied: Callable[[str], Path], change: Callable[[onnx.ModelProto], None], message: str):
        folder = copied("transformers.js")
        rewritten(folder / "onnx" / "vision_model.onnx", change)
        with pytest.raises(BundleError, match=message):
            edgeclip.load(folder)

    @pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f" + bytes(10), b"\x08\x07"])
    def test_what_is_none(self, copied: Callable[[str], Path], content: bytes):
        folder = copied("image")
        (folder / "model.onnx").write_bytes(content)
        with pytest.raises(BundleError, match="expected an ONNX graph"):
            edgeclip.load(folder)

    def test_one_that_is_cut_or_changed_anywhere(self, copied: Callable[[str], Path], images: list[Image.Image]):
        folder = copied("image")
        path, rng = folder / "model.onnx", np.random.default_rng(1)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole[: rng.integers(len(whole))])
            for at in rng.integers(len(data), size=3):
                data[at] = rng.integers(256)
            path.write_bytes(data)
            try:
                clip = edgeclip.load(folder, threads=1, cache=None)
                clip.encode_image(images[0])
            except EdgeclipError as error:
                assert "\n" not in str(error)  # noqa: PT017 - it may also do no harm

    def test_embeddings_that_are_not_finite(self, copied: Callable[[str], Path], images: list[Image.Image]):
        folder = copied("image")

        def spoil(graph: onnx.ModelProto) -> None:
            for tensor in graph.graph.initializer:
                if len(tensor.dims) == 1 and tensor.data_type == onnx.TensorProto.FLOAT:
                    tensor.raw_data = np.full(tensor.dims[0], np.nan, np.float32).tobytes()

        rewritten(folder / "model.onnx", spoil)
        with pytest.raises(BundleError, match="image_embeds that are zero or not finite"):
            edgeclip.load(folder, threads=1).encode_image(images[0])

    def test_an_operation_that_this_runtime_has_not(self, copied: Callable[[str], Path], images: list[Image.Image]):
        folder = copied("image")

        def change(graph: onnx.ModelProto) -> None:
            (softmax, *_) = (node for node in graph.graph.node if node.op_type == "Softmax")
            softmax.op_type, softmax.domain = "BiasSplitGelu", "com.microsoft"
            softmax.input.append(softmax.input[0])
            del softmax.attribute[:]
            graph.opset_import.add(domain="com.microsoft", version=1)

        rewritten(folder / "model.onnx", change)
        with pytest.raises(BundleError, match="expected an ONNX graph"):
            edgeclip.load(folder, threads=1).encode_image(images[0])

    def test_a_width_that_is_not_what_it_says(self, copied: Callable[[str], Path], images: list[Image.Image]):
        folder = copied("image")

        def widen(graph: onnx.ModelProto) -> None:
            graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "any"
            del graph.graph.value_info[:]

        rewritten(folder / "model.onnx", widen)
        config = json.loads((folder / "config.json").read_text())
        assert edgeclip.load(folder, threads=1).encode_image(images[0]).shape == (1, config["projection_dim"])
        (folder / "config.json").write_text(json.dumps(config | {"projection_dim": 8}))
        with pytest.raises(BundleError, match=r"image_embeds of shape \(1, 16\) for 1 items; expected \(1, 8\)"):
            edgeclip.load(folder, threads=1).encode_image(images[0])

    def test_both_towers_in_one(self, copied: Callable[[str], Path]):
        folder = copied("transformers.js")
        combined = folder / "onnx" / "model.onnx"
        shutil.copy(combined, folder / "model.onnx")
        for path in (folder / "onnx").glob("*_model*.onnx"):
            path.unlink()
        with pytest.raises(BundleError, match=r"model\.onnx with both towers in one graph"):
            edgeclip.load(folder)
        (folder / "model.onnx").unlink()
        with pytest.raises(BundleError, match=r"both towers in one graph, model\.onnx; expected a graph for each"):
            edgeclip.load(folder)


class TestExternalData:
    @pytest.fixture
    def folder(self, copied: Callable[[str], Path]) -> Path:
        """Weights in a file beside the graph, as exporters write what is larger than 2 GB."""
        folder = copied("transformers.js")
        path = folder / "onnx" / "vision_model.onnx"
        graph = onnx.load(path)
        onnx.save_model(graph, path, save_as_external_data=True, location="vision_model.onnx_data", size_threshold=0)
        return folder

    def test_beside_the_graph_they_are_read(self, folder: Path, model: CLIPModel, images: list[Image.Image]):
        clip = edgeclip.load(folder, threads=1)
        np.testing.assert_allclose(clip.encode_image(images), expected_images(model, images), atol=2e-6)
        assert "onnx/vision_model.onnx_data" in clip.bundle.files

    def test_they_are_part_of_the_fingerprint(self, folder: Path):
        first = edgeclip.load(folder).bundle.fingerprint
        data = folder / "onnx" / "vision_model.onnx_data"
        data.write_bytes(bytes(data.stat().st_size))
        assert edgeclip.load(folder).bundle.fingerprint != first

    @pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "a/../../secret.bin", "", "\0"])
    def test_elsewhere_they_are_not(self, folder: Path, location: str):
        (folder / "secret.bin").write_bytes(bytes(10**6))
        (folder / "onnx" / "link.bin").symlink_to(folder / "secret.bin")

        def move(graph: onnx.ModelProto) -> None:
            for tensor in external_data_helper._get_all_tensors(graph):
                for entry in tensor.external_data:
                    entry.value = location if entry.key == "location" else entry.value

        path = folder / "onnx" / "vision_model.onnx"
        graph = onnx.load(path, load_external_data=False)
        move(graph)
        path.write_bytes(graph.SerializeToString())
        with pytest.raises(BundleError, match=r"with weights in .*; expected a file in its own folder"):
            edgeclip.load(folder)

    def test_ones_that_are_too_short_are_told(self, folder: Path):
        weights = folder / "onnx" / "vision_model.onnx_data"
        weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(BundleError, match=r"vision_model\.onnx_data of \d+ bytes; expected \d+, as vision_model"):
            edgeclip.load(folder)

    @pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("length", "many"), ("offset", str(2**62))])
    def test_places_that_are_none(self, folder: Path, key: str, value: str):
        path = folder / "onnx" / "vision_model.onnx"
        graph = onnx.load(path, load_external_data=False)
        (tensor, *_) = (tensor for tensor in graph.graph.initializer if tensor.external_data)
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
        path.write_bytes(graph.SerializeToString())
        with pytest.raises(BundleError, match=r"weights at offset|vision_model\.onnx_data of \d+ bytes; expected \d+"):
            edgeclip.load(folder)

    def test_missing_ones_are_named(self, folder: Path):
        (folder / "onnx" / "vision_model.onnx_data").unlink()
        with pytest.raises(BundleError, match=r"without vision_model\.onnx_data, which holds its weights"):
            edgeclip.load(folder)


class TestWhatIsWrongBesideIt:
    @pytest.mark.parametrize(
        ("name", "file", "change", "error", "message"),
        [
            ("transformers.js", "config.json", {"model_type": "blip"}, CheckpointError, "'blip'.*give a CLIP"),
            ("transformers.js", "config.json", {"model_type": "siglip"}, BundleError, "the configuration says"),
            ("text", "config.json", {"model_type": "bert"}, CheckpointError, "model_type 'bert'.*clip_text_model"),
            ("transformers.js", "config.json", {"projection_dim": 512}, BundleError, "the configuration says 512"),
            ("immich", "config.json", {"embed_dim": 8}, BundleError, "the configuration says 8"),
            ("immich", "config.json", {"text_cfg": {"hf_model_name": "bert"}}, CheckpointError, "hf_model_name"),
            ("immich", "config.json", {"init_logit_bias": -10}, CheckpointError, "init_logit_bias = -10"),
            ("immich", "visual/preprocess_cfg.json", {"size": [64, 64]}, BundleError, "whose images are of"),
            ("immich", "visual/preprocess_cfg.json", {"resize_mode": "longest"}, CheckpointError, "resize_mode"),
            ("image", "preprocessor_config.json", {"crop_size": 64}, BundleError, "whose images are of"),
            ("image", "preprocessor_config.json", {"do_pad": True}, CheckpointError, "do_pad True"),
        ],
    )  # fmt: skip
    def test_a_file_says_something_else(
        self,
        copied: Callable[[str], Path],
        name: str,
        file: str,
        change: dict[str, object],
        error: type[EdgeclipError],
        message: str,
    ):
        path = copied(name) / file
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(error, match=message):
            edgeclip.load(path.parents[file.count("/")])

    @pytest.mark.parametrize(
        ("name", "file"),
        [
            ("transformers.js", "config.json"),
            ("transformers.js", "preprocessor_config.json"),
            ("transformers.js", "tokenizer.json"),
            ("immich", "visual/preprocess_cfg.json"),
            ("immich", "textual/tokenizer.json"),
        ],
    )
    def test_a_file_is_missing(self, copied: Callable[[str], Path], name: str, file: str):
        folder = copied(name)
        (folder / file).unlink()
        with pytest.raises(EdgeclipError, match=file.rpartition("/")[2]):
            edgeclip.load(folder)

    @pytest.mark.parametrize("extra", [-300, 300])
    def test_the_tokenizer_of_another_model(self, copied: Callable[[str], Path], extra: int):
        folder = copied("transformers.js")
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        vocab = content["model"]["vocab"]
        if extra > 0:
            vocab |= {f"more{number}": len(vocab) + number for number in range(extra)}
        else:
            content["model"]["vocab"] = {name: number for name, number in vocab.items() if number < len(vocab) + extra}
            content["added_tokens"] = []
        path.write_text(json.dumps(content))
        with pytest.raises(BundleError, match=r"tokenizer\.json of \d+ tokens; expected \d+, as text_model\.onnx has"):
            edgeclip.load(folder)

    def test_no_tokenizer_at_all(self, copied: Callable[[str], Path]):
        folder = copied("text")
        for content in (b"", b"[]", b"{}", b'{"model": {"vocab": {"a": "b"}}}', b"[" * 100_000):
            (folder / "tokenizer.json").write_bytes(content)
            with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
                edgeclip.load(folder)

    def test_no_length_is_told(self, copied: Callable[[str], Path]):
        folder = copied("text")
        for file, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
            content = json.loads((folder / file).read_text())
            del content[key]
            (folder / file).write_text(json.dumps(content))
        with pytest.raises(BundleError, match="don't tell how many tokens"):
            edgeclip.load(folder)


def test_an_export_of_our_own_for_immich_is_read_too(
    checkpoint: object, few_pairs: object, bundles: dict[str, Path], tmp_path: Path, images: list[Image.Image]
):
    from edgeclip.export import export_immich

    export_immich(checkpoint, tmp_path / "immich", few_pairs, precision="fp32", threads=1)
    clip, own = edgeclip.load(tmp_path / "immich", threads=1), edgeclip.load(bundles["fp32"], threads=1)
    assert clip.bundle.layout.name == "immich"
    np.testing.assert_allclose(clip.encode_image(images), own.encode_image(images), atol=2e-6)
    np.testing.assert_allclose(clip.encode_text(TEXTS), own.encode_text(TEXTS), atol=2e-6)


class TestHub:
    @pytest.fixture
    def hub(self, folders: dict[str, Path]) -> Iterator[Hub]:
        with Hub(folders["transformers.js"]) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    @staticmethod
    def fetched(hub: Hub) -> set[str]:
        return {
            line.partition("/resolve/")[2].partition("/")[2]
            for line in hub.asked
            if line.startswith("GET") and "/resolve/" in line
        }

    @pytest.mark.parametrize("name", ["transformers.js", "immich", "both", "text"])
    def test_only_what_is_needed_is_fetched_and_once(
        self, hub: Hub, folders: dict[str, Path], tmp_path: Path, name: str
    ):
        hub.folder = folders[name]
        address = f"http://127.0.0.1:{hub.server_port}"
        first = load("someone/tiny", tmp_path, address)
        assert (first.returncode, first.stderr) == (0, "")
        assert json.loads(first.stdout)["shape"] == [1, 16]
        graphs = {file for file in self.fetched(hub) if file.endswith(".onnx")}
        assert (
            graphs
            == {
                "transformers.js": {"onnx/vision_model.onnx", "onnx/text_model.onnx"},
                "immich": {"visual/model.onnx", "textual/model.onnx"},
                "both": {"vision/model.onnx", "text/model.onnx"},
                "text": {"model.onnx"},
            }[name]
        )
        hub.asked.clear()
        offline = load("someone/tiny", tmp_path, address, HF_HUB_OFFLINE="1")
        assert offline.returncode == 0, offline.stderr
        assert hub.asked == []

    def test_a_precision_that_is_not_there_is_not_taken_for_a_tower_less(
        self, hub: Hub, copied: Callable[[str], Path], tmp_path: Path
    ):
        hub.folder = copied("transformers.js")
        for path in hub.folder.glob("onnx/text_model*.onnx"):
            path.rename(path.with_name("text_model_q4.onnx"))
        done = load("someone/tiny", tmp_path / "home", f"http://127.0.0.1:{hub.server_port}")
        assert done.returncode == 0, done.stderr
        graphs = {file for file in self.fetched(hub) if file.endswith(".onnx")}
        assert graphs == {"onnx/vision_model.onnx", "onnx/text_model_q4.onnx"}

    def test_weights_beside_the_graphs_are_fetched_too(self, hub: Hub, copied: Callable[[str], Path], tmp_path: Path):
        folder = copied("text")
        path = folder / "model.onnx"
        onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
        hub.folder = folder
        done = load("someone/tiny", tmp_path / "home", f"http://127.0.0.1:{hub.server_port}")
        assert done.returncode == 0, done.stderr
        assert {"model.onnx", "model.onnx_data"} <= self.fetched(hub)

    @pytest.mark.parametrize("name", ["transformers.js", "checkpoint", "bundle"])
    def test_inspect_and_export_tell_graphs_from_checkpoints_and_bundles(
        self, hub: Hub, copied: Callable[[str], Path], mini_checkpoint: Path, bundles: dict[str, Path], tmp_path, name
    ):
        if name == "checkpoint":  # with graphs beside its weights, which say less than they
            shutil.copytree(mini_checkpoint, tmp_path / "checkpoint")
            shutil.copytree(copied("transformers.js") / "onnx", tmp_path / "checkpoint" / "onnx")
        hub.folder = bundles["fp32"] if name == "bundle" else tmp_path / name if name == "checkpoint" else copied(name)
        told = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "home")}
        few = ["--samples", "4", "--threads", "1", "--workers", "0"]
        commands = [["inspect", "someone/tiny"]]
        commands += (
            [["export", "someone/tiny", "--out", str(tmp_path / "out"), "--logit-scale", "50", *few]]
            if name == "transformers.js"
            else []
        )
        for arguments in commands:
            command = [sys.executable, "-m", "edgeclip.cli.main", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | told, check=False)
            assert done.returncode == 0, done.stderr
            said = {
                "transformers.js": "layout      transformers.js",
                "checkpoint": "safetensors",
                "bundle": "fingerprint",
            }
            assert said[name] in done.stdout or arguments[0] == "export"
        if name == "checkpoint":
            assert not [file for file in self.fetched(hub) if file.endswith(".onnx")]
        if name == "transformers.js":
            assert json.loads((tmp_path / "out" / "edgeclip.json").read_text())["teacher"] == "someone/tiny"

    def test_what_is_neither_is_one_line(self, hub: Hub, mini_checkpoint: Path, tmp_path: Path):
        hub.folder = mini_checkpoint
        done = load("someone/tiny", tmp_path, f"http://127.0.0.1:{hub.server_port}")
        (line,) = done.stderr.splitlines()
        assert "someone/tiny on the hub, without edgeclip.json and without ONNX graphs" in line
        assert not [file for file in self.fetched(hub) if file.endswith(".safetensors")]


def test_the_name_is_the_hubs(folders: dict[str, Path], tmp_path: Path):
    snapshot = tmp_path / "models--user--clip" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(folders["image"], snapshot)
    assert edgeclip.load(snapshot).bundle.name == "user/clip"
    assert foreign.find_foreign(folders["image"]).name == "fastembed"
    assert edgeclip.load(snapshot).bundle.image_size == SIDE
