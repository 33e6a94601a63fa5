"""An index from the first picture to the answer, against vectors that were computed without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeclip.runtime import ClipRuntime
from edgeclip.search import Index
from tests.search.conftest import caption


@pytest.fixture
def index(tmp_path: Path, clip: ClipRuntime, scenes: Path):
    with Index.open(tmp_path / "photos.db", clip) as opened:
        opened.add(scenes)
        yield opened


def test_results_are_those_of_an_exact_search(index: Index, clip: ClipRuntime, scenes: Path):
    paths = sorted(scenes.rglob("*.png"))
    embeds = clip.encode_image(paths).astype(np.float16).astype(np.float32)
    for number in (0, 7, 20):
        scores = embeds @ clip.encode_text(caption(number))[0]
        answer = index.search(caption(number), k=5)
        best = np.argsort(-scores)[:5]
        assert [result.path for result in answer.results] == [str(paths[i]) for i in best]
        np.testing.assert_allclose([result.score for result in answer.results], scores[best], atol=2e-3)


def test_a_picture_that_is_asked_by_is_left_out(index: Index, scenes: Path):
    path = scenes / "even" / "02.png"
    for answer in (index.search(path, k=24), index.similar(path, k=24)):
        assert len(answer.results) == 23
        assert str(path) not in {result.path for result in answer.results}


def test_weights_add_and_take_away(index: Index, clip: ClipRuntime, scenes: Path):
    path = scenes / "odd" / "03.png"
    query = 2 * clip.encode_image(path)[0] - clip.encode_text("a red mug")[0]
    rest = sorted(set(scenes.rglob("*.png")) - {path})
    scores = clip.encode_image(rest) @ query
    answer = index.search([(2.0, path), (-1.0, "a red mug")], k=3)
    assert [result.path for result in answer.results] == [str(rest[i]) for i in np.argsort(-scores)[:3]]
