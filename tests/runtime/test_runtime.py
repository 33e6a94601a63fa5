"""A bundle made once from a small model: encoding, classification, verification, and damage of every kind."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

import edgeclip
from edgeclip.bundle import check_replaceable, read_bundle, sealed, verify_files
from edgeclip.checkpoint import Checkpoint
from edgeclip.errors import BundleError, ConfigError, EdgeclipError, ImageError
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples
from edgeclip.manifest import Manifest
from edgeclip.runtime import ClipRuntime, self_test
from edgeclip.runtime.stream import FLUSH


@torch.no_grad()
def test_the_runtime_equals_the_checkpoint(clip: ClipRuntime, checkpoint: Checkpoint, pictures: list[Path]):
    image_embeds = clip.encode_image(pictures)
    expected = checkpoint.model.encode_image(torch.stack([checkpoint.preprocess(path) for path in pictures]))
    assert image_embeds.dtype == np.float32
    np.testing.assert_allclose(image_embeds, expected.numpy(), atol=2e-6)
    texts = ["a red ball", "", "two blue boxes on the table"]
    expected = checkpoint.model.encode_text(checkpoint.tokenize(texts))
    np.testing.assert_allclose(clip.encode_text(texts), expected.numpy(), atol=2e-6)
    np.testing.assert_allclose(clip.encode_text(texts, batch_size=3), clip.encode_text(texts), atol=2e-6)


def test_every_kind_of_source(clip: ClipRuntime, pictures: list[Path]):
    path = pictures[0]
    sources = [path, str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path))]
    embeds = clip.encode_image(sources, batch_size=2)
    assert embeds.shape == (5, clip.embedding_size)
    np.testing.assert_allclose(embeds, np.repeat(embeds[:1], 5, axis=0), atol=1e-6)


def test_nothing_gives_no_rows(clip: ClipRuntime):
    assert clip.encode_image([]).shape == (0, 16)
    assert clip.encode_text([]).shape == (0, 16)


def test_numbers_out_of_range(clip: ClipRuntime, pictures: list[Path]):
    for options in ({"batch_size": 0}, {"workers": -1}, {"dtype": "float64"}):
        with pytest.raises(ConfigError):
            clip.encode_image(pictures, **options)


@torch.no_grad()
def test_long_texts_are_cut_at_the_context(clip: ClipRuntime, checkpoint: Checkpoint):
    text = "a red ball on the table " * 2000
    expected = checkpoint.model.encode_text(
        checkpoint.tokenize([text])
    )  # of 16 tokens, the last of them the end of text
    np.testing.assert_allclose(clip.encode_text([text]), expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_texts_of_any_length_come_back_in_their_order(bundles: dict[str, Path], batch_size: int):
    texts = ["two blue boxes on the table", "a", "a red ball on the table", "", "ball", "a", "large white mug"]
    for precision in ("fp32", "int8"):
        clip = edgeclip.load(bundles[precision], threads=1)
        alone = np.concatenate([clip.encode_text([text]) for text in texts])
        together = clip.encode_text(texts, batch_size=batch_size)
        if batch_size == 1:
            np.testing.assert_array_equal(together, alone)
        else:  # within what int8 batches sway each other by
            np.testing.assert_allclose(together, alone, atol=2e-6 if precision == "fp32" else 0.05)
            assert (together @ alone.T).argmax(axis=1).tolist()[0] == 0


def test_workers_and_streams_give_the_same_rows(bundles: dict[str, Path], pictures: list[Path], tmp_path: Path):
    clip = edgeclip.load(bundles["int8"], threads=1)
    alone = np.concatenate([clip.encode_image([picture]) for picture in pictures])
    for workers in (1, 3):
        np.testing.assert_array_equal(clip.encode_image(pictures, workers=workers), alone)
    (tmp_path / "broken.png").write_bytes(b"")
    stream = list(clip.stream_images([pictures[0], tmp_path / "broken.png", FLUSH, pictures[1]], workers=2))
    assert [source for source, _ in stream] == [pictures[0], tmp_path / "broken.png", pictures[1]]
    assert isinstance(stream[1][1], ImageError)
    np.testing.assert_array_equal(stream[2][1], alone[1])
    with pytest.raises(ImageError, match="broken"):
        clip.encode_image([pictures[0], tmp_path / "broken.png"], workers=2)
    texts = ["a", "a red ball", "", "two blue boxes", "mug"]
    for group, workers in ((1, 0), (1, 2), (2, 2)):
        streamed = list(clip.stream_texts(texts, group=group, workers=workers))
        assert [text for text, _ in streamed] == texts
        np.testing.assert_array_equal(np.stack([row for _, row in streamed]), clip.encode_text(texts))


def test_a_graph_is_opened_only_when_it_is_used(bundles: dict[str, Path], pictures: list[Path]):
    clip = edgeclip.load(bundles["int8"], threads=1)
    assert clip.open_graphs == []
    clip.encode_image(pictures[:1])
    assert clip.open_graphs == ["image"]


def test_classification(clip: ClipRuntime, pictures: list[Path]):
    labels = ["red ball", "blue box", "star"]
    results = clip.classify(pictures, labels, template="a photo of {}, indeed")
    image, texts = clip.encode_image(pictures), clip.encode_text([f"a photo of {label}, indeed" for label in labels])
    logits = clip.bundle.manifest.logit_scale * image @ texts.T
    for found, row in zip(results, logits, strict=True):
        assert [label.name for label in found] == [labels[i] for i in np.argsort(-row)]
        assert sum(label.probability for label in found) == pytest.approx(1)
    for bad in ({"labels": []}, {"labels": labels, "template": "no place"}):
        with pytest.raises(ConfigError, match="template"):
            clip.classify(pictures, **bad)


def test_threads_share_a_runtime(bundles: dict[str, Path], pictures: list[Path]):
    labels = ["red ball", "blue box", "star"]

    def everything(clip: ClipRuntime) -> tuple[np.ndarray, np.ndarray, list]:
        return clip.encode_image(pictures, workers=2), clip.encode_text(labels), clip.classify(pictures, labels)

    images, texts, found = everything(edgeclip.load(bundles["int8"], threads=1))
    clip = edgeclip.load(bundles["int8"], threads=1)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: everything(clip), range(8)))
    for result in results:
        np.testing.assert_array_equal(result[0], images)
        np.testing.assert_array_equal(result[1], texts)
        assert result[2] == found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_verifies_where_it_was_made(bundles: dict[str, Path], precision: str):
    cosines = self_test(edgeclip.load(bundles[precision], threads=1))
    assert min(cosines.values()) == pytest.approx(1, abs=1e-5)


def test_the_layout_is_what_other_clients_look_for(bundles: dict[str, Path]):
    names = {p.relative_to(bundles["int8"]).as_posix() for p in bundles["int8"].rglob("*") if p.is_file()}
    assert names == {
        *("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "edgeclip.json"),
        *("onnx/vision_model_quantized.onnx", "onnx/text_model_quantized.onnx"),
    }


@pytest.mark.slow
def test_precisions_have_different_fingerprints(
    bundles: dict[str, Path], checkpoint: Checkpoint, few_pairs: Samples, tmp_path: Path, exporter, monkeypatch
):
    prints = {name: read_bundle(folder).manifest.fingerprint for name, folder in bundles.items()}
    assert prints["fp32"] != prints["int8"]
    monkeypatch.setattr("torch.onnx.export", exporter)  # which has to give the same graphs again
    again, _ = export_bundle(checkpoint, tmp_path / "again", few_pairs, precision="fp32", threads=1)
    assert again.fingerprint == prints["fp32"]


@pytest.fixture
def copy(bundles: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles["fp32"], tmp_path / "copy"))


def test_a_tampered_file_is_named(copy: Path):
    path = copy / "onnx" / "vision_model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"vision_model\.onnx, which was changed"):
        verify_files(read_bundle(copy))


def test_incomplete_and_foreign_bundles(copy: Path, tmp_path: Path):
    (copy / "onnx" / "text_model.onnx").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"text_model\.onnx of 5 bytes"):
        edgeclip.load(copy)
    (copy / "onnx" / "text_model.onnx").unlink()
    with pytest.raises(BundleError, match=r"without onnx/text_model\.onnx"):
        edgeclip.load(copy)
    with pytest.raises(BundleError, match="edgeclip export"):
        edgeclip.load(tmp_path)


def rewrite(folder: Path, change: dict) -> None:
    """Change the manifest as its maker could have: sealed."""
    path = folder / "edgeclip.json"
    manifest = json.loads(path.read_text()) | change
    path.write_bytes(msgspec.json.encode(sealed(msgspec.convert(manifest, Manifest))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99.*update edgeclip"),
        ({"schema": 1}, "schema 1.*export the model again"),
        ({"surprise": 1}, "surprise"),
        ({"logit_scale": 0.5}, "which was changed"),
        ({"card": None}, "which was changed"),
        ({"precision": "int3"}, "int3"),
    ],
)
def test_manifests_that_were_changed(copy: Path, change: dict, message: str):
    path = copy / "edgeclip.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        edgeclip.load(copy)


def test_a_nested_manifest_is_one_error(copy: Path):
    (copy / "edgeclip.json").write_text('{"a":' * 100_000)
    with pytest.raises(BundleError, match=r"edgeclip\.json"):
        edgeclip.load(copy)


def test_a_changed_small_file_is_named_when_the_bundle_is_loaded(copy: Path):
    path = copy / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.48145466", "0.98145466"))
    with pytest.raises(BundleError, match=r"preprocessor_config\.json, which was changed"):
        edgeclip.load(copy)


def test_golden_embeddings_of_another_model(copy: Path):
    golden = json.loads((copy / "edgeclip.json").read_text())["golden"]
    rewrite(copy, {"golden": golden | {"text_embeds": [1.0]}})
    with pytest.raises(BundleError, match="embeddings of 1 numbers"):
        edgeclip.load(copy)


def test_a_batch_that_the_graph_does_not_take(clip: ClipRuntime):
    with pytest.raises(BundleError, match=r"batch of shape \(1, 3, 8, 8\)"):
        clip._image.run(np.zeros((1, 3, 8, 8), np.float32))


def test_where_there_is_no_home(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    clip = edgeclip.load(bundles["fp32"], threads=1)
    np.testing.assert_array_equal(clip.encode_text(["a"], cached=True), clip.encode_text(["a"]))


def test_a_dtype_that_is_not_known(clip: ClipRuntime, pictures: list[Path]):
    with pytest.raises(ConfigError, match="int4"):
        clip.encode_image(pictures, dtype="int4")


def test_only_a_bundle_is_replaced(copy: Path, tmp_path: Path):
    check_replaceable(copy)
    check_replaceable(tmp_path / "new")
    (copy / "photos.npy").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"photos\.npy"):
        check_replaceable(copy)
    with pytest.raises(ConfigError, match="which is no bundle"):
        check_replaceable(tmp_path)
    with pytest.raises(ConfigError, match=r"which is a file.*photos\.npy-2"):
        check_replaceable(copy / "photos.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {}}, "without onnx/vision_model"),
        ({"files": {"../../etc/passwd": {"sha256": "", "bytes": 1}}}, "without onnx/vision_model"),
    ],
)
def test_manifests_of_another_kind(copy: Path, change: dict, message: str):
    rewrite(copy, change)
    with pytest.raises(BundleError, match=message):
        edgeclip.load(copy)


def test_a_name_that_leads_out_of_the_bundle_is_refused(copy: Path):
    files = json.loads((copy / "edgeclip.json").read_text())["files"]
    rewrite(copy, {"files": files | {"../secret": {"sha256": "", "bytes": 1}}})
    with pytest.raises(BundleError, match="inside the bundle"):
        edgeclip.load(copy)


def test_a_machine_that_computes_something_else_is_found_out(copy: Path):
    golden = json.loads((copy / "edgeclip.json").read_text())["golden"]
    rewrite(copy, {"golden": golden | {"image_embeds": [-value for value in golden["image_embeds"]]}})
    with pytest.raises(BundleError, match="image embedding with a cosine of -1"):
        self_test(edgeclip.load(copy))


def test_broken_images_and_graphs_are_user_errors(copy: Path, clip: ClipRuntime, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        clip.encode_image([tmp_path / "broken.jpg"])
    graph = copy / "onnx" / "text_model.onnx"
    graph.write_bytes(b"\0" * graph.stat().st_size)
    with pytest.raises(EdgeclipError, match=r"text_model\.onnx"):
        edgeclip.load(copy).encode_text(["a"])


def test_an_export_that_fails_leaves_the_old_bundle(
    checkpoint: Checkpoint, few_pairs: Samples, copy: Path, monkeypatch: pytest.MonkeyPatch
):
    before = sorted(p.name for p in copy.rglob("*"))

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeclip.export.float_graphs.write_text_graph", fail)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(checkpoint, copy, few_pairs, precision="fp32", threads=1)
    assert sorted(p.name for p in copy.rglob("*")) == before
    assert [p.name for p in copy.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_a_number_of_threads_that_no_machine_has(bundles: dict[str, Path], threads: int):
    with pytest.raises(ConfigError, match="threads"):
        edgeclip.load(bundles["fp32"], threads=threads)


def test_a_group_of_no_texts_is_refused(clip: ClipRuntime):
    with pytest.raises(ConfigError, match="`group` 0"):
        next(clip.stream_texts(["a"], group=0))
