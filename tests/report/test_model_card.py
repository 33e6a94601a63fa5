"""The hub's page of a bundle: metadata that the hub's own client reads, recalls, the licence of the base model."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard import metadata_load
from msgspec.structs import replace

from edgeclip.bundle import check_replaceable, entries, read_bundle, sealed, verify_files
from edgeclip.errors import ConfigError
from edgeclip.files import as_json
from edgeclip.manifest import COMPRESS_CARD, MANIFEST
from edgeclip.report.model_card import EVAL_RESULTS, licence_of, write_model_card
from edgeclip.tune.record import Compressed, Student
from tests.report.test_compressed_html import card as compressed  # noqa: F401 - a fixture


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """A bundle that says it was made from a model of the hub, and measured on a data set of it."""
    folder = tmp_path / "small"
    shutil.copytree(bundles["int8"], folder)
    manifest = read_bundle(folder).manifest
    card = replace(manifest.card, data="nlphuji/flickr30k")
    changed = sealed(replace(manifest, teacher="openai/clip-vit-base-patch32", card=card))
    (folder / MANIFEST).write_bytes(as_json(changed))
    return folder


def test_the_hubs_client_reads_the_card(bundle: Path):
    readme, results = write_model_card(bundle, name="me/small", licence="mit")
    assert results == bundle / EVAL_RESULTS
    card, text = ModelCard.load(readme), readme.read_text()
    assert card.data.base_model == "openai/clip-vit-base-patch32"
    assert metadata_load(readme)["base_model_relation"] == "quantized"
    assert (card.data.library_name, card.data.license) == ("edgeclip", "mit")
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert {"clip", "onnx"} <= set(card.data.tags)
    measured = read_bundle(bundle).manifest.card
    assert [result.metric_value for result in card.data.eval_results] == [measured.i2t.r1.value, measured.t2i.r1.value]
    assert 'edgeclip.load("me/small")' in text
    assert f"On {measured.pairs} pairs of nlphuji/flickr30k" in text


def test_a_student_is_no_quantized_base_model(bundle: Path, compressed: Compressed):  # noqa: F811
    manifest = read_bundle(bundle).manifest
    student = Student(recipe="quarter", images=6400, epochs=4)
    (bundle / COMPRESS_CARD).write_bytes(as_json(replace(compressed, students={compressed.winner.image: student})))
    (bundle / MANIFEST).write_bytes(as_json(sealed(replace(manifest, files=entries(bundle)))))
    readme = write_model_card(bundle, name="me/small", licence="mit")[0]
    assert metadata_load(readme)["base_model_relation"] == "finetune"
    assert "--recipe quarter` would make of the teacher, trained on 6400 images 4 times." in readme.read_text()


def test_the_hubs_client_reads_the_recalls(bundle: Path):
    import yaml

    _, results = write_model_card(bundle, name=None, licence="mit")
    entries = parse_eval_result_entries(yaml.safe_load(results.read_text()))
    measured = read_bundle(bundle).manifest.card
    assert {entry.dataset_id for entry in entries} == {"nlphuji/flickr30k"}
    assert [entry.value for entry in entries] == [measured.i2t.r1.value, measured.t2i.r1.value]


def test_a_bundle_with_its_cards_is_still_that_bundle(bundle: Path):
    before = read_bundle(bundle).manifest
    write_model_card(bundle, name=None, licence="mit")
    assert read_bundle(bundle).manifest == before
    verify_files(read_bundle(bundle))
    check_replaceable(bundle)


def test_no_recalls_are_filed_under_what_is_no_data_set_of_the_hub(bundles: dict[str, Path], tmp_path: Path):
    shutil.copytree(bundles["int8"], tmp_path / "own")
    written = write_model_card(tmp_path / "own", name=None, licence="mit")
    assert written == [tmp_path / "own" / "README.md"]
    assert "base_model" not in metadata_load(written[0])


def test_the_licence_is_the_base_models_own_and_never_guessed(tmp_path: Path):
    assert licence_of("builtin:tabletop") == "apache-2.0"
    with pytest.raises(ConfigError, match="`license` mit"):
        licence_of(str(tmp_path))
    (tmp_path / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# A model\n")
    assert licence_of(str(tmp_path)) == "bsd-3-clause"
