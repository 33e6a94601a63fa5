"""What is done to texts first goes from a checkpoint into its bundle, its students and other clients' layouts."""
# ruff: noqa: RUF001

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

import edgeclip
from edgeclip.bundle import read_bundle
from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeclip.export import export_bundle
from edgeclip.export.immich import write_model_folder
from edgeclip.export.samples import Samples
from edgeclip.tokenizer import ClipTokenizer, build_tokenizer
from tests.once import MadeOnce

ODD, PLAIN = "  A ＲＥＤ   ball &amp;amp; “box”", 'a red ball & "box"'


def cleaning(checkpoint: Checkpoint, clean: str) -> Checkpoint:
    plain = checkpoint.tokenizer
    length = plain.context_length
    tokenizer = ClipTokenizer(build_tokenizer(plain.vocab, plain.merges, clean), context_length=length, clean=clean)
    return replace(checkpoint, tokenizer_or_reason=tokenizer)


@pytest.fixture(scope="session")
def folders(checkpoint: Checkpoint, few_pairs: Samples, once: MadeOnce) -> dict[str, Path]:
    """Bundles of one model that differ in what is done to texts first."""
    names = ("none", "openai", "canonicalize")

    def export(folder: Path) -> None:
        for clean in names:
            export_bundle(cleaning(checkpoint, clean), folder / clean, few_pairs, precision="fp32", threads=1)

    folder = once("cleaning", export)
    return {clean: folder / clean for clean in names}


def test_a_bundle_does_what_its_checkpoint_did(checkpoint: Checkpoint, folders: dict[str, Path]):
    clip, teacher = edgeclip.load(folders["openai"], threads=1), cleaning(checkpoint, "openai")
    np.testing.assert_allclose(clip.encode_text(ODD), teacher.encode_text(ODD), atol=2e-6)
    np.testing.assert_array_equal(clip.encode_text(ODD), clip.encode_text(PLAIN))
    for clean in ("none", "canonicalize"):
        other = edgeclip.load(folders[clean], threads=1)
        assert not np.allclose(clip.encode_text(ODD), other.encode_text(ODD), atol=1e-3)


def test_cached_prompts_of_one_cleaning_are_not_those_of_another(folders: dict[str, Path], tmp_path: Path):
    for _ in range(2):
        for folder in folders.values():
            clip = edgeclip.load(folder, threads=1, cache=tmp_path)
            np.testing.assert_array_equal(clip.encode_text(ODD, cached=True), clip.encode_text(ODD))
    assert len({read_bundle(folder).manifest.fingerprint for folder in folders.values()}) == 3


def test_a_saved_checkpoint_keeps_it(checkpoint: Checkpoint, tmp_path: Path):
    student = cleaning(checkpoint, "openai")
    save_checkpoint(student.model, student.preprocess_config, student.tokenizer, tmp_path / "student")
    again = load_checkpoint(tmp_path / "student")
    assert again.tokenizer.clean == "openai"
    assert again.tokenizer.token_ids(ODD) == again.tokenizer.token_ids(PLAIN)


def test_inspect_says_it(folders: dict[str, Path], edgeclip_here: Callable[..., CompletedProcess[str]]):
    shown = {clean: edgeclip_here("inspect", folder).stdout for clean, folder in folders.items()}
    assert "repaired" not in shown["none"]
    assert "repaired as by OpenAI's code" in shown["openai"]
    assert "but for mojibake" in shown["openai"]
    assert "punctuation removed" in shown["canonicalize"]
    said = json.loads(edgeclip_here("inspect", folders["openai"], "--json").stdout)
    assert said["text_cleaning"] == "openai"


@pytest.mark.parametrize(
    ("clean", "immichs"), [("none", "lower"), ("openai", "lower"), ("canonicalize", "canonicalize")]
)
def test_immich_is_told(folders: dict[str, Path], tmp_path: Path, clean: str, immichs: str):
    (tmp_path / "folder").mkdir()
    write_model_folder(read_bundle(folders[clean]), tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["text_cfg"]["tokenizer_kwargs"] == {"clean": immichs}
