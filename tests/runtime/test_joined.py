"""The image tower of one folder with the text tower of another, without torch."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import msgspec
import numpy as np
import pytest

import edgeclip
from edgeclip.bundle import sealed
from edgeclip.errors import BundleError, ConfigError
from edgeclip.manifest import MANIFEST, Manifest
from edgeclip.search import Index

PICTURES = np.random.default_rng(3).integers(0, 256, (3, 40, 60, 3), np.uint8)
TEXTS = ["a red ball", "two boxes on a table"]


@pytest.fixture
def towers(foreign_folders: dict[str, Path]) -> str:
    """Two folders of one tower each, as fastembed publishes them."""
    return f"{foreign_folders['image']}+{foreign_folders['text']}"


def test_two_folders_of_one_tower_are_one_model(towers: str, foreign_folders: dict[str, Path]):
    whole = edgeclip.load(foreign_folders["transformers.js"], threads=1, logit_scale=50)
    joined = edgeclip.load(towers, threads=1, logit_scale=50)
    assert joined.towers == ["image", "text"]
    np.testing.assert_allclose(joined.encode_image(PICTURES), whole.encode_image(PICTURES), atol=1e-6)
    np.testing.assert_allclose(joined.encode_text(TEXTS), whole.encode_text(TEXTS), atol=1e-6)
    (found,), (expected,) = (clip.classify(PICTURES[:1], TEXTS) for clip in (joined, whole))
    assert [label.probability for label in found] == pytest.approx([label.probability for label in expected], abs=1e-5)
    again = pickle.loads(pickle.dumps(joined))
    np.testing.assert_array_equal(again.encode_text(TEXTS), joined.encode_text(TEXTS))
    assert again.logit_scale == 50
    assert joined.bundle.fingerprint not in {edgeclip.load(part).bundle.fingerprint for part in towers.split("+")}


def test_the_logit_scale_is_asked_for(towers: str):
    joined = edgeclip.load(towers)
    with pytest.raises(BundleError, match=r"don't tell the logit scale; expected it, .*; give `logit_scale`"):
        joined.classify(PICTURES, TEXTS)
    with pytest.raises(ConfigError, match=r"`logit_bias` for .*, a CLIP"):
        edgeclip.load(towers, logit_bias=-10.0)
    with pytest.raises(ConfigError, match="`logit_scale`"):
        edgeclip.load(towers, logit_scale=0.0)


def test_towers_of_two_bundles(bundles: dict[str, Path]):
    both = {name: edgeclip.load(bundles[name], threads=1) for name in ("int8", "fp32")}
    joined = edgeclip.load(f"{bundles['int8']}+{bundles['fp32']}", threads=1)
    assert joined.logit_scale == both["int8"].logit_scale
    np.testing.assert_array_equal(joined.encode_image(PICTURES), both["int8"].encode_image(PICTURES))
    np.testing.assert_array_equal(joined.encode_text(TEXTS), both["fp32"].encode_text(TEXTS))
    with pytest.raises(BundleError, match="two models joined; expected one; give each alone"):
        _ = joined.own_bundle
    with pytest.raises(ConfigError, match="`precision` for two bundles"):
        edgeclip.load(f"{bundles['int8']}+{bundles['fp32']}", precision="q8")


def test_towers_that_do_not_belong_together(foreign_folders: dict[str, Path], bundles: dict[str, Path], tmp_path: Path):
    image, text = foreign_folders["image"], foreign_folders["text"]
    with pytest.raises(BundleError, match=rf"expected an image tower before the \+ .*; use {re.escape(f'{image}+')}"):
        edgeclip.load(f"{text}+{image}")
    with pytest.raises(BundleError, match=r"of which .* has no text tower; .*; give one that has it in its place"):
        edgeclip.load(f"{image}+{image}")
    with pytest.raises(BundleError, match=r"with embeddings of 16 for images and \d+ for texts; expected towers that"):
        edgeclip.load(f"{image}+builtin:tabletop")
    other = shutil.copytree(bundles["int8"], tmp_path / "other")
    manifest = msgspec.json.decode((other / MANIFEST).read_bytes(), type=Manifest)
    (other / MANIFEST).write_bytes(msgspec.json.encode(sealed(msgspec.structs.replace(manifest, logit_scale=3.0))))
    with pytest.raises(BundleError, match=r"with the logit scales \S+ and 3; expected towers"):
        edgeclip.load(f"{bundles['int8']}+{other}")
    assert edgeclip.load(f"{bundles['int8']}+{other}", logit_scale=3.5).logit_scale == 3.5


def test_commands_take_both_or_say_what_to_do(
    towers: str,
    captioned_folder: Path,
    edgeclip_here: Callable[..., CompletedProcess[str]],
    mistake: Callable[..., str],
    tmp_path: Path,
):
    labels = ("--labels", "cat,dog", "--logit-scale", 100)
    photo = captioned_folder / "images" / "000.jpg"
    assert "cat " in edgeclip_here("classify", towers, photo, *labels).stdout
    assert "R@1" in edgeclip_here("evaluate", towers, "--data", captioned_folder, "--samples", 8).stdout
    for command, *rest in (("export", "--out", tmp_path / "out"), ("inspect",)):
        assert "two models of graphs; expected one, or two checkpoints" in mistake(command, towers, *rest)
    assert not (tmp_path / "out").exists()


def test_an_index_finds_both_again_from_anywhere(
    foreign_folders: dict[str, Path], captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(foreign_folders["image"].parent)
    with Index.open(tmp_path / "db", "image+text") as index:
        index.add([captioned_folder / "images" / "000.jpg"])
    monkeypatch.chdir(tmp_path)
    with Index.open(tmp_path / "db") as index:
        assert index.search("a red ball").results[0].path.endswith("000.jpg")


def test_a_missing_tower_says_how_to_give_it(foreign_folders: dict[str, Path]):
    with pytest.raises(BundleError, match=r"has no text tower; .*; give a folder that has it too, as .*\+TEXT"):
        edgeclip.load(foreign_folders["image"]).encode_text("a")
    with pytest.raises(BundleError, match=r"has no image tower; .*, as IMAGE\+"):
        edgeclip.load(foreign_folders["text"]).encode_image(PICTURES)
