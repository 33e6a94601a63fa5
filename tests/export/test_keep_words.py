"""Bundles with fewer words than their checkpoint, made and used as a user does."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from msgspec.structs import replace

import edgeclip
from edgeclip.bundle import file_entry, sealed
from edgeclip.files import as_json
from edgeclip.manifest import LOST_WORDS
from edgeclip.runtime.clip import load
from tests import published
from tests.once import MadeOnce

TEXTS = ["a photo of a cat on the table", "кошка лежит на столе", "a cat"]
SMALL = ["--samples", 4, "--threads", 1, "--workers", 0]


@pytest.fixture
def folder(once: MadeOnce, edgeclip_here: Callable[..., CompletedProcess[str]]) -> Path:
    def make(folder: Path) -> None:
        model = published.write_siglip2(folder / "checkpoint")
        (folder / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
        few = ["--keep-words", folder / "texts.txt", "--keep-words", "hebrew"]
        fp32 = ["--precision", "fp32"]
        for name, options in (("whole", fp32), ("fp32", [*fp32, *few]), ("int8", few)):
            done = edgeclip_here("export", model, "--out", folder / name, *SMALL, *options)
            assert done.returncode == 0, done.stderr

    return once("keep-words", make)


@pytest.mark.slow
def test_kept_texts_have_the_embeddings_of_the_whole_vocabulary_to_the_bit(folder: Path):
    with load(folder / "whole", threads=1) as whole, load(folder / "fp32", threads=1) as few:
        np.testing.assert_array_equal(few.encode_text(TEXTS), whole.encode_text(TEXTS))
        assert few.bundle.bytes < whole.bundle.bytes
        assert whole.lost_words("ein Hund") == [[]]
        assert few.lost_words(["a cat", "ein Hund läuft", "חתול"]) == [[], ["ein", "Hund", "läuft"], []]


@pytest.mark.slow
def test_int8_keeps_them_too(folder: Path):
    with load(folder / "whole", threads=1) as whole, load(folder / "int8", threads=1) as few:
        assert (few.encode_text(TEXTS) * whole.encode_text(TEXTS)).sum(axis=1).min() > 0.995


@pytest.mark.slow
def test_lost_words_are_told_once(folder: Path, caplog: pytest.LogCaptureFixture):
    with load(folder / "fp32", threads=1) as clip, caplog.at_level(logging.WARNING, "edgeclip"):
        clip.encode_text(["a cat", "חתול"])
        assert not caplog.messages
        clip.encode_text(["ein Hund", "Hund"])
        clip.encode_text(["Hund"])
    (message,) = caplog.messages
    assert message.startswith("2 words are not among those that this bundle keeps") and message.endswith("ein, Hund")  # noqa: PT018


@pytest.mark.slow
def test_inspect_says_how_many_are_kept(folder: Path, edgeclip_here: Callable[..., CompletedProcess[str]]):
    kept = json.loads((folder / "int8" / "edgeclip.json").read_text())["words"]
    assert (
        f"KEPT {kept['tokens']:,} of 420 tokens, for 3 texts, hebrew"
        in edgeclip_here("inspect", folder / "int8").stdout
    )
    assert edgeclip_here("verify", folder / "int8").returncode == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"[]"), gzip.compress(b'{"model": 3}')],
    ids=["empty", "no gzip", "a list", "no model"],
)
@pytest.mark.slow
def test_a_damaged_file_of_lost_words_is_named(folder: Path, tmp_path: Path, content: bytes):
    with load(folder / "fp32", threads=1) as clip:
        bundle = clip.own_bundle
    damaged = tmp_path / "damaged"
    for name in bundle.manifest.files:
        (damaged / name).parent.mkdir(parents=True, exist_ok=True)
        (damaged / name).write_bytes((bundle.folder / name).read_bytes())
    (damaged / LOST_WORDS).write_bytes(content)
    files = bundle.manifest.files | {LOST_WORDS: file_entry(damaged / LOST_WORDS)}
    manifest = sealed(replace(bundle.manifest, files=files))
    (damaged / "edgeclip.json").write_bytes(as_json(manifest))
    with load(damaged, threads=1) as clip, pytest.raises(edgeclip.EdgeclipError, match=r"lost_words|tokenizer"):
        clip.encode_text(["a cat"])


def test_a_language_is_refused_before_the_model_is_read(tmp_path: Path, mistake: Callable[..., str]):
    line = mistake("export", "no/such/model", "--out", tmp_path / "b", "--keep-words", "german")
    assert "--keep-words german; expected a file of texts or captions, or one of the scripts arabic, " in line
