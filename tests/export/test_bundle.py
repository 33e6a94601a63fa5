"""Export as a whole: what is measured, what is refused, and what auto chooses."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

import edgeclip
from edgeclip.bundle import read_bundle
from edgeclip.checkpoint import Checkpoint
from edgeclip.data.split import CALIBRATE
from edgeclip.errors import CheckpointError, ConfigError, DataError, TokenizerError
from edgeclip.export import export_bundle
from edgeclip.export.export_settings import SampleSettings
from edgeclip.export.samples import Samples, load_samples
from edgeclip.manifest import Card, Closeness
from edgeclip.results import Interval, Recalls
from edgeclip.runtime.clip import ClipRuntime


def recalls(r1: float) -> Recalls:
    return Recalls(**{name: Interval(value=r1, low=r1, high=r1) for name in ("r1", "r5", "r10")})


def card(i2t: float, t2i: float, image: float = 0.999, text: float = 0.999) -> Card:
    return Card(
        data="d",
        seed=0,
        pairs=100,
        teacher_i2t=recalls(90),
        teacher_t2i=recalls(80),
        i2t=recalls(i2t),
        t2i=recalls(t2i),
        image_cosine=Closeness(mean=image, smallest=0.9),
        text_cosine=Closeness(mean=text, smallest=0.9),
    )


@pytest.mark.parametrize(
    ("measured", "kept"),
    [
        (card(90, 80), True),
        (card(89, 79), True),
        (card(95, 78.9), False),
        (card(88.9, 85), False),
        (card(90, 80, image=0.9949), False),
        (card(90, 80, text=0.9949), False),
        (card(90, 80, image=0.995, text=0.995), True),
    ],
)
def test_the_gate(measured: Card, kept: bool):
    assert measured.keeps_accuracy is kept


@pytest.mark.filterwarnings("ignore:invalid value")  # in the similarities
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.slow
def test_embeddings_that_are_not_finite_make_no_bundle(
    checkpoint: Checkpoint, few_pairs: Samples, tmp_path: Path, precision: str
):
    """Of finite weights, and an earlier bundle stays."""
    export_bundle(checkpoint, tmp_path / "bundle", few_pairs, precision="fp32", threads=1)
    before = (tmp_path / "bundle" / "edgeclip.json").read_bytes()
    broken = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    broken.model.state_dict()["vision.projection.weight"].fill_(3e38)
    with pytest.raises(CheckpointError, match=f"{precision} graphs, made from .*, whose image embeddings have no"):
        export_bundle(broken, tmp_path / "bundle", few_pairs, precision=precision, threads=1)
    assert (tmp_path / "bundle" / "edgeclip.json").read_bytes() == before


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_embeddings_of_zero_make_no_bundle(checkpoint: Checkpoint, few_pairs: Samples, tmp_path: Path, tower: str):
    broken = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    broken.model.state_dict()[f"{tower}.projection.weight"].zero_()
    kind = "image" if tower == "vision" else "text"
    with pytest.raises(CheckpointError, match=f"whose {kind} embeddings have no direction; expected .* not zero"):
        export_bundle(broken, tmp_path / "bundle", few_pairs, precision="fp32", threads=1)
    assert not (tmp_path / "bundle").exists()


def test_a_tokenizer_that_does_not_fit_is_refused_before_the_work(
    mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(shutil.copytree(mini_checkpoint, tmp_path / "a"))
    (folder / "tokenizer.json").write_bytes(b"")
    monkeypatch.setattr("edgeclip.export.run.load_samples", lambda *_: pytest.fail("the work was begun"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        edgeclip.export(folder, tmp_path / "bundle")


def test_samples_do_not_overlap(captioned_folder: Path, checkpoint: Checkpoint):
    settings = SampleSettings(data=str(captioned_folder), samples=100, workers=0)
    samples = load_samples(settings, checkpoint.preprocess_config)
    parts = [set(part.names) for part in (samples.calibrate, samples.choose, samples.measure)]
    assert [len(part) for part in parts] == [3, 3, 18]  # of 24 pictures, an eighth calibrates, and one chooses
    assert len(set.union(*parts)) == 24
    few = load_samples(
        msgspec.structs.replace(settings, data="builtin:tabletop", samples=3), checkpoint.preprocess_config
    )
    assert (len(few.calibrate), len(few.measure)) == (CALIBRATE, 3)
    assert (
        few.calibrate.names
        != load_samples(
            SampleSettings(data="builtin:tabletop", samples=3, seed=1, workers=0), checkpoint.preprocess_config
        ).calibrate.names
    )


def test_too_few_pairs(tmp_path: Path, captioned_folder: Path, checkpoint: Checkpoint):
    rows = (captioned_folder / "captions.csv").read_text().splitlines()[:5]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    (tmp_path / "images").symlink_to(captioned_folder / "images")
    with pytest.raises(DataError, match="of 2 pairs"):
        load_samples(SampleSettings(data=str(tmp_path), workers=0), checkpoint.preprocess_config)
    with pytest.raises(ConfigError, match="samples"):
        SampleSettings(data="builtin:tabletop", samples=1)


@torch.no_grad()
@pytest.mark.slow
def test_the_card_says_what_can_be_measured_again(checkpoint: Checkpoint, tmp_path: Path):
    samples = load_samples(SampleSettings(data="builtin:tabletop", samples=8, workers=0), checkpoint.preprocess_config)
    manifest, measured = export_bundle(checkpoint, tmp_path / "b", samples, precision="int8", threads=1)
    assert read_bundle(tmp_path / "b").manifest == manifest
    assert manifest.card == measured
    import edgeclip

    clip = edgeclip.load(tmp_path / "b", threads=1)
    images = np.concatenate([clip.encode_image([pixels]) for pixels in samples.measure.pixels])
    exact = torch.cat(
        [checkpoint.model.encode_image(checkpoint.preprocess(pixels)[None]) for pixels in samples.measure.pixels]
    )
    cosines = (images * exact.numpy()).sum(axis=1)
    assert measured.image_cosine.mean == pytest.approx(cosines.mean(), abs=2e-5)
    assert measured.image_cosine.smallest == pytest.approx(cosines.min(), abs=2e-5)
    assert measured.pairs == 8
    assert len(samples.calibrate) == CALIBRATE


@pytest.mark.parametrize("kept", ["int8", "fp32"])
def test_auto_chooses_on_the_pairs_to_choose_on(
    checkpoint: Checkpoint,
    few_pairs: Samples,
    bundles: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: str,
):
    """And not on those that it is measured on, which say the opposite here; what is kept is as if asked for."""
    seen: list[tuple[str, list[str]]] = []
    on_chosen, on_measured = (card(90, 80), card(80, 80)) if kept == "int8" else (card(80, 80), card(90, 80))

    def release_card(teacher: Checkpoint, clip: ClipRuntime, images: object, texts: list[str], **of: object) -> Card:
        seen.append((clip.bundle.manifest.precision, texts))
        return on_chosen if texts == few_pairs.choose.first_captions else on_measured

    monkeypatch.setattr("edgeclip.export.measure.release_card", release_card)
    manifest, measured = export_bundle(checkpoint, tmp_path / "bundle", few_pairs, precision="auto", threads=1)
    assert (manifest.precision, measured) == (kept, on_measured)
    assert seen == [("int8", few_pairs.choose.first_captions), (kept, few_pairs.measure.first_captions)]
    assert manifest.files == read_bundle(bundles[kept]).manifest.files


@pytest.mark.slow
def test_auto_takes_int8_where_it_keeps_the_accuracy_and_fp32_elsewhere(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    samples = load_samples(SampleSettings(data="builtin:tabletop", samples=2, workers=0), checkpoint.preprocess_config)
    cards = {"int8": card(90, 80), "fp32": card(90, 80)}
    monkeypatch.setattr(
        "edgeclip.export.measure.release_card",
        lambda teacher, clip, *pairs, **of: cards[clip.bundle.manifest.precision],
    )
    manifest, _ = export_bundle(checkpoint, tmp_path / "kept", samples, precision="auto", threads=1)
    assert manifest.precision == "int8"
    cards["int8"] = card(80, 80)
    manifest, _ = export_bundle(checkpoint, tmp_path / "lost", samples, precision="auto", threads=1)
    assert manifest.precision == "fp32"
    assert "int8 does not keep the accuracy: R@1 80.0 / 80.0 (teacher 90.0 / 80.0)" in caplog.text
    names = {path.name for path in (tmp_path / "lost" / "onnx").iterdir()}
    assert names == {"vision_model.onnx", "text_model.onnx"}
