"""Queries as they are typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.errors import ConfigError
from edgeclip.runtime import ClipRuntime
from edgeclip.search.queries import Term, embed, is_noun, parse


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with pool.jpg, "my pool + slide.jpg" and notes.txt in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("pool.jpg", "my pool + slide.jpg"):
        Image.new("RGB", (8, 8), "blue").save(name)
    Path("notes.txt").write_text("words")


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        (["a dog on a sofa"], [(1, "a dog on a sofa")]),
        (["a", "dog", "on", "a", "sofa"], [(1, "a dog on a sofa")]),
        (["horse", "+", "stripes"], [(1, "horse"), (1, "stripes")]),
        (["horse + stripes"], [(1, "horse"), (1, "stripes")]),
        (["apple - fruit"], [(1, "apple"), (-1, "fruit")]),
        (["- fruit"], [(-1, "fruit")]),
        (["2:golden retriever", "+", "./pool.jpg"], [(2, "golden retriever"), (1, Path("pool.jpg"))]),
        (["2:golden retriever + ./pool.jpg"], [(2, "golden retriever"), (1, Path("pool.jpg"))]),
        (["pool.jpg"], [(1, Path("pool.jpg"))]),
        (["0.5:pool.jpg", "-", "1.5:a wet dog"], [(0.5, Path("pool.jpg")), (-1.5, "a wet dog")]),
        (["my pool + slide.jpg"], [(1, Path("my pool + slide.jpg"))]),
        (["t-shirt", "mother-in-law"], [(1, "t-shirt mother-in-law")]),
        (["a photo: 3:00 o'clock"], [(1, "a photo: 3:00 o'clock")]),
        (["notes.txt"], [(1, "notes.txt")]),
        (["gone.jpg"], [(1, "gone.jpg")]),
        ([], []),
    ],
)
def test_parts_and_weights(words: list[str], terms: list[tuple[float, object]]):
    assert parse(words) == [Term(float(weight), what) for weight, what in terms]


def test_not_takes_away():
    assert parse(["apple"], ["fruit", "2:tree"]) == [Term(1.0, "apple"), Term(-1.0, "fruit"), Term(-2.0, "tree")]


MISTAKES = ["horse +", "+", "-", "horse + + stripes", "./gone.jpg", "/", "0:dog", " ", "", "dog + 0:cat"]


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(words: str):
    with pytest.raises(ConfigError):
        parse([words])


@pytest.mark.parametrize("text", ["dog", "golden retriever", "red sports car"])
def test_nouns(text: str):
    assert is_noun(text)


@pytest.mark.parametrize(
    "text", ["a dog", "dog on sofa", "my cat", "two dogs", "dog!", "a dog on a sofa", "", "the sea"]
)
def test_phrases(text: str):
    assert not is_noun(text)


def test_a_noun_is_the_mean_of_its_templates_and_a_sentence_is_itself(clip: ClipRuntime):
    (noun,) = embed(clip, [Term(1.0, "mug")], raw_prompt=False)
    texts = ["mug", "a photo of a mug", "a picture of the mug", "a close-up photo of a mug"]
    mean = clip.encode_text(texts).mean(0)
    np.testing.assert_allclose(noun, mean / np.linalg.norm(mean), atol=1e-6)
    for term, raw in ((Term(1.0, "mug"), True), (Term(1.0, "a red mug"), False)):
        np.testing.assert_allclose(embed(clip, [term], raw_prompt=raw)[0], clip.encode_text(term.what)[0], atol=1e-6)
