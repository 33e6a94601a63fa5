"""`edgeclip export`, `verify` and `classify`, and the runtime where torch is not installed."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeclip as package
from edgeclip.checkpoint import load_checkpoint
from edgeclip.shrink.fuse_tokens import with_fusion


def test_verify_and_classify(edgeclip, bundle: Path, captioned_folder: Path):
    done = edgeclip("verify", bundle)
    assert done.returncode == 0, done.stderr
    assert "7 files as they were made" in done.stdout
    picture = captioned_folder / "images" / "000.jpg"
    done = edgeclip("classify", bundle, picture, picture, "--labels", "ball, box,", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(line["labels"]) for line in lines] == [{"ball", "box"}] * 2


def test_recall_of_a_bundle_is_that_of_its_embeddings(
    edgeclip_here, bundle: Path, captioned_folder: Path, tmp_path: Path
):
    done = edgeclip_here(
        "evaluate", bundle, "--data", captioned_folder, "--samples", 24, "--workers", 0, "--threads", 1, "--json"
    )
    assert done.returncode == 0, done.stderr
    clip = package.load(bundle, threads=1)
    paths = sorted((captioned_folder / "images").iterdir())
    images = np.concatenate([clip.encode_image([path]) for path in paths])
    texts = np.concatenate([clip.encode_text([f"picture, number {index}"]) for index in range(len(paths))])
    found = json.loads(done.stdout)
    assert found["images"] == len(paths) == 24
    for direction, similarities in (("i2t", images @ texts.T), ("t2i", texts @ images.T)):
        rivals = similarities - 2 * np.eye(24)
        first = similarities.diagonal() > rivals.max(axis=1)  # ties count against the model
        assert found[direction]["r1"]["value"] == pytest.approx(100 * first.mean(), abs=1e-3)
    done = edgeclip_here("distill", bundle, "--recipe", "qad", "--out", tmp_path / "out")
    assert "which is a bundle; expected a checkpoint" in done.stderr


def test_an_output_that_is_no_bundle_is_not_replaced(edgeclip_here, mini_checkpoint: Path, captioned_folder: Path):
    done = edgeclip_here("export", mini_checkpoint, "--out", captioned_folder)
    assert done.returncode == 2
    assert "which is no bundle" in done.stderr
    assert (captioned_folder / "captions.csv").is_file()


def test_a_folder_for_immich(edgeclip_here, bundle: Path, mini_checkpoint: Path, tmp_path: Path):
    out = Path(shutil.copytree(bundle, tmp_path / "ViT-B-32__openai"))  # what edgeclip wrote, it replaces
    command = ("export", mini_checkpoint, "--out", out, "--layout", "immich", "--samples", 6, "--threads", 1)
    done = edgeclip_here(*command, "--with-joint-graph")
    assert done.returncode == 2
    assert "leave out --with-combined-graph" in done.stderr
    assert (out / "onnx").is_dir()
    done = edgeclip_here(*command)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "edgeclip.json", "textual", "visual"]
    manifest = json.loads((out / "edgeclip.json").read_text())
    assert manifest["precision"] == "int8"
    assert manifest["fingerprint"] == json.loads((bundle / "edgeclip.json").read_text())["fingerprint"]
    assert manifest["fingerprint"] in done.stdout
    assert set(manifest["files"]) >= {"visual/model.onnx", "textual/model.onnx", "textual/tokenizer.json"}
    done = edgeclip_here("verify", out)
    assert done.returncode == 2
    assert "graphs of immich" in done.stderr


def test_a_bundle_that_fuses_tokens_says_so(
    edgeclip_here, mini_checkpoint: Path, captioned_folder: Path, tmp_path: Path
):
    command = ("export", mini_checkpoint, "--samples", 6, "--threads", 1, "--fuse-tokens", "tome:2@1")
    for layout in ("edgeclip", "immich"):
        done = edgeclip_here(*command, "--out", tmp_path / layout, "--layout", layout, "--precision", "fp32")
        assert done.returncode == 0, done.stderr
        fusion = json.loads((tmp_path / layout / "edgeclip.json").read_text())["fusion"]
        assert (fusion["criterion"], fusion["steps"]) == ("tome", [[1, 2]])
    assert "FUSES       5 tokens to 3 from layer 1" in edgeclip_here("inspect", tmp_path / "edgeclip").stdout
    assert edgeclip_here("verify", tmp_path / "edgeclip").returncode == 0
    pictures = sorted((captioned_folder / "images").iterdir())[:4]
    fused = package.load(tmp_path / "edgeclip", threads=1)
    teacher = load_checkpoint(mini_checkpoint)
    wanted = replace(teacher, model=with_fusion(teacher.model, fused.bundle.config.vision.fusion))
    np.testing.assert_allclose(fused.encode_image(pictures), wanted.encode_image(pictures), atol=1e-5)
    card = fused.bundle.manifest.card
    assert card is not None
    assert card.image_cosine.mean < 1  # beside all tokens


def test_a_fusion_that_cannot_be_is_one_line_and_nothing_is_written(mistake, mini_checkpoint: Path, tmp_path: Path):
    for schedule, message in (
        ("3", "--fuse-tokens 3"),
        ("x", "--fuse-tokens 'x'"),
        ("1@2", "layer 2 of an image tower"),
    ):
        assert message in mistake("export", mini_checkpoint, "--out", tmp_path / "out", "--fuse-tokens", schedule)
    assert not (tmp_path / "out").exists()


def test_a_tampered_bundle_is_refused(edgeclip_here, bundle: Path, tmp_path: Path):
    done = edgeclip_here("verify", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("edgeclip: ")


def test_the_runtime_works_without_torch(bundle: Path, captioned_folder: Path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'safetensors', 'onnx', 'datasets']))\n"
        f"import edgeclip\nclip = edgeclip.load({str(bundle)!r}, threads=1)\n"
        f"images = clip.encode_image([{str(captioned_folder / 'images' / '000.jpg')!r}])\n"
        "print(images.shape, clip.encode_text(['a', 'b']).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 16) (2, 16)", done.stderr


def test_inspect_shows_the_release_card(edgeclip_here, bundle: Path, tmp_path: Path):
    done = edgeclip_here("inspect", bundle)
    assert done.returncode == 0, done.stderr
    for words in ("image to text", "int8 here", "6 pairs of builtin:tabletop", "onnx/text_model_quantized.onnx"):
        assert words in done.stdout
    found = json.loads(edgeclip_here("inspect", bundle, "--json").stdout)
    assert found["manifest"] == json.loads((bundle / "edgeclip.json").read_text())
    assert found["disk_bytes"] == sum(entry["bytes"] for entry in found["manifest"]["files"].values())
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "config.json").unlink()
    done = edgeclip_here("inspect", copy)
    assert done.returncode == 2
    assert "without config.json" in done.stderr


def test_labels_are_read_once_each(edgeclip_here, bundle: Path, captioned_folder: Path, tmp_path: Path):
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfball\r\nbox\r\nball\r\n")
    picture = captioned_folder / "images" / "001.jpg"
    done = edgeclip_here("classify", bundle, picture, "--labels-file", tmp_path / "labels.txt", "--json")
    assert done.returncode == 0, done.stderr
    labels = json.loads(done.stdout)["labels"]
    assert set(labels) == {"ball", "box"}
    assert abs(sum(labels.values()) - 1) < 1e-6


def test_a_closed_standard_input(bundle: Path, captioned_folder: Path):
    picture = captioned_folder / "images" / "001.jpg"
    command = f"exec <&-; {sys.executable} -m edgeclip.cli.main classify {bundle} {{}} --labels a,b"
    done = subprocess.run(["sh", "-c", command.format(picture)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["sh", "-c", command.format("-")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("edgeclip: a closed standard input")


def test_what_lies_in_a_bundle_is_not_lost(edgeclip_here, bundle: Path, mini_checkpoint: Path, tmp_path: Path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "photos.npy").write_bytes(b"mine")
    done = edgeclip_here("export", mini_checkpoint, "--out", copy, "--samples", 6)
    assert done.returncode == 2
    assert "photos.npy" in done.stderr
    assert (copy / "photos.npy").read_bytes() == b"mine"
