"""Telling that there is nothing, on the built-in world, whose captions calibration has never seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeclip.runtime import ClipRuntime
from edgeclip.search import Index
from edgeclip.search.confidence import disordered
from tests.search.conftest import caption, draw


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, clip: ClipRuntime) -> Index:
    folder = tmp_path_factory.mktemp("confidence")
    for number in range(60):
        draw(folder / "pictures" / f"{number}.png", number)
    with Index.open(folder / "photos.db", clip) as opened:
        opened.add(folder / "pictures")
        yield opened


def test_captions_of_indexed_pictures_match_and_many_others_do_not(index: Index):
    there = [index.search(caption(number), k=1).is_match for number in range(60)]
    others = [index.search(caption(number), k=1).is_match for number in range(1000, 1060)]
    assert sum(there) >= 55
    assert sum(others) <= 40


def test_only_texts_are_judged(index: Index):
    picture = Path(index.search(caption(0), k=1).results[0].path)
    for query in (picture, [(1.0, caption(0)), (-1.0, caption(1))]):
        answer = index.search(query, k=1)
        assert (answer.is_match, answer.confidence) == (True, None)


def test_it_is_done_once(index: Index, clip: ClipRuntime, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clip, "encode_text", lambda *_: pytest.fail("texts were encoded again"))
    folder = Path(index.status().roots[0])
    draw(folder / "60.png", 60)
    assert index.add(folder).encoded == 1


def test_texts_of_a_vocabulary():
    vocabulary = {f"{word}</w>": n for n, word in enumerate(f"word{chr(97 + n)}" for n in range(26))}
    texts = disordered({**vocabulary, "sub": 90, "a</w>": 91, "42</w>": 92, "<|endoftext|>": 93})
    assert len(texts) == len(set(texts)) == 256
    assert texts == disordered(dict(reversed(vocabulary.items())))
    assert {word for text in texts for word in text.split()[3:]} == {token[:-4] for token in vocabulary}
    assert disordered({"word</w>": 0}) == []
