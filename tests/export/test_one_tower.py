"""Bundles of one tower alone, against transformers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from edgeclip.bundle import read_bundle
from edgeclip.checkpoint import load_checkpoint
from edgeclip.checkpoint.load import load_towers
from edgeclip.errors import BundleError, EdgeclipError
from edgeclip.export.export_settings import ExportSettings
from edgeclip.export.run import export
from edgeclip.image import crop_uint8
from edgeclip.image import normalize as normalize_pixels
from edgeclip.report.model_card import write_model_card
from edgeclip.runtime.clip import ClipRuntime, load
from edgeclip.runtime.selftest import self_test
from tests import published
from tests.once import MadeOnce

pytestmark = pytest.mark.slow
PICTURES = np.random.default_rng(3).integers(0, 256, (3, 40, 60, 3), np.uint8)


def vision(folder: Path) -> None:
    published.write(published.clip_vision(), published.pieces(roberta=True), folder, tokenizer_class="")
    (folder / "tokenizer.json").unlink()


def text(folder: Path) -> None:
    published.write(published.clip_text(), published.pieces(), folder, tokenizer_class="", **published.PIECES_CONFIG)


def siglip_vision(folder: Path) -> None:
    published.write(published.siglip_vision(), published.pieces(), folder, tokenizer_class="")


def siglip_text(folder: Path) -> None:
    config = {**published.PIECES_CONFIG, "model_max_length": 16}
    published.write(published.siglip_text(), published.pieces(), folder, tokenizer_class="SiglipTokenizer", **config)


MAKE = {
    "vision": vision,
    "text": text,
    "sentence": published.write_sentence_transformers,
    "siglip vision": siglip_vision,
    "siglip text": siglip_text,
}


def bundle_of(kind: str, once: MadeOnce, precision: str) -> tuple[Path, ClipRuntime]:
    source = once(f"one tower {kind}", MAKE[kind])

    def make(folder: Path) -> None:
        settings = ExportSettings(model=str(source), precision=precision, samples=6, workers=0, threads=1)
        manifest, closeness = export(settings, folder / "bundle")
        assert (manifest.card, manifest.closeness) == (None, closeness)
        assert closeness.smallest > 0.995

    return source, load(once(f"one tower {kind} {precision}", make) / "bundle", threads=1)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_image_tower(once: MadeOnce, precision: str):
    source, clip = bundle_of("vision", once, precision)
    with clip, torch.no_grad():
        joined = load_checkpoint(f"{source}+{once('one tower text', text)}")
        pixels = torch.stack([joined.preprocess(picture) for picture in PICTURES])
        expected = normalize(published.clip_vision()(pixels).image_embeds, dim=-1).numpy()
        cosines = (clip.encode_image(PICTURES) * expected).sum(axis=1)
        assert cosines.min() > (0.99999 if precision == "fp32" else 0.995)
        assert clip.towers == ["image"]
        assert list(self_test(clip)) == ["image"]
        with pytest.raises(BundleError, match=r"which has no text tower; expected .* or images alone; .*\+TEXT"):
            clip.encode_text(["a cat"])
        with pytest.raises(BundleError, match="no text tower"):
            clip.classify(PICTURES, ["a", "b"])


@pytest.mark.parametrize("kind", ["text", "sentence"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_text_tower(once: MadeOnce, kind: str, precision: str):
    source, clip = bundle_of(kind, once, precision)
    with clip:
        image = once("one tower vision", vision)
        expected = load_checkpoint(f"{image}+{source}").encode_text(published.SENTENCES)
        cosines = (clip.encode_text(published.SENTENCES) * expected).sum(axis=1)
        assert cosines.min() > (0.99999 if precision == "fp32" else 0.995)
        assert clip.towers == ["text"]
        assert list(self_test(clip)) == ["text"]
        with pytest.raises(BundleError, match="which has no image tower"):
            clip.encode_image(PICTURES)
        again = pickle.loads(pickle.dumps(clip))
        np.testing.assert_array_equal(again.encode_text(["a"]), clip.encode_text(["a"]))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_siglip_s_towers_join_again(once: MadeOnce, precision: str):
    _, clip_text = bundle_of("text", once, precision)
    (image, _), (text, _) = (bundle_of(f"siglip {kind}", once, precision) for kind in ("vision", "text"))
    folders = [once(f"one tower siglip {kind} {precision}", lambda _: None) / "bundle" for kind in ("vision", "text")]
    towers = load_towers(image), load_towers(text)
    joined = load("+".join(map(str, folders)), threads=1, logit_scale=10, logit_bias=-1.5)
    crops = np.stack([crop_uint8(picture, towers[0].preprocess_config) for picture in PICTURES])
    pixels = torch.from_numpy(normalize_pixels(crops, towers[0].preprocess_config))
    input_ids = torch.from_numpy(towers[1].tokenizer(published.SENTENCES))
    with torch.no_grad():
        exacts = published.siglip_vision()(pixels).pooler_output, published.siglip_text()(input_ids).pooler_output
    for found, exact in zip(
        (joined.encode_image(PICTURES), joined.encode_text(published.SENTENCES)),
        (normalize(exact, dim=-1).numpy() for exact in exacts),
        strict=True,
    ):
        assert (found * exact).sum(axis=1).min() > (0.99999 if precision == "fp32" else 0.995)
    (labels,) = joined.classify(PICTURES[:1], ["a cat", "a dog"])
    cosine = joined.encode_image(PICTURES[:1])[0] @ joined.encode_text("a photo of a a cat")[0]
    of_cat = next(label.probability for label in labels if label.name == "a cat")
    assert of_cat == pytest.approx(1 / (1 + np.exp(-(10 * cosine - 1.5))), abs=0.05)
    with pytest.raises(BundleError, match="the logit bias; expected it"):
        load("+".join(map(str, folders)), threads=1, logit_scale=10).classify(PICTURES, ["a"])
    with pytest.raises(BundleError, match="SigLIP's image tower and CLIP's text tower; expected towers that"):
        load(f"{folders[0]}+{clip_text.bundle.folder}")


def test_what_is_told_of_it(
    once: MadeOnce, edgeclip_here: Callable[..., CompletedProcess[str]], mistake: Callable[..., str], tmp_path: Path
):
    source, clip = bundle_of("sentence", once, "int8")
    folder = clip.bundle.folder
    clip.close()
    inspected = edgeclip_here("inspect", folder).stdout
    assert "one tower alone" in inspected
    assert "\nimage " not in inspected
    name, _, cosine = edgeclip_here("verify", folder).stdout.splitlines()[-1].split()
    assert name == "text"
    assert float(cosine) > 0.9999
    assert "which has no image tower" in mistake("evaluate", folder)
    assert "a text tower alone; expected both towers" in mistake("evaluate", source)
    assert "a text tower alone; expected both towers" in mistake("compress", source, "--out", tmp_path / "out")
    with pytest.raises(BundleError, match="no image tower"):
        _ = read_bundle(folder).config
    with pytest.raises(BundleError, match="one tower alone; expected a bundle with a release card"):
        write_model_card(folder, name=None, licence="mit")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("layout", "immich"), ("combined_graph", True), ("fuse_tokens", "50%"), ("keep_words", ("latin",))],
)
def test_what_needs_both(once: MadeOnce, tmp_path: Path, setting: str, value: object):
    source = once("one tower text", text)
    settings = ExportSettings(model=str(source), samples=6, workers=0, threads=1, **{setting: value})
    with pytest.raises(EdgeclipError, match=f"`{setting}` for .*, a text tower alone; expected both towers"):
        export(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_manifest_of_the_other_tower(once: MadeOnce, tmp_path: Path):
    _, clip = bundle_of("text", once, "fp32")
    (tmp_path / "b").mkdir()
    for path in clip.bundle.folder.rglob("*"):
        if path.is_file():
            target = tmp_path / "b" / path.relative_to(clip.bundle.folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    clip.close()
    (tmp_path / "b" / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(EdgeclipError, match=r"changed|bytes"):
        load(tmp_path / "b")
