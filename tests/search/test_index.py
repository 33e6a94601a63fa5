"""An index from the first picture to the answer, against vectors that were computed without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeclip.errors import ConfigError, DataError, InputError
from edgeclip.runtime import ClipRuntime
from edgeclip.search import Filters, Index
from tests.search.conftest import caption, draw, paths


def test_results_are_those_of_an_exact_search(index: Index, clip: ClipRuntime, scenes: Path):
    index.add(scenes)
    files = sorted(scenes.rglob("*.png"))
    embeds = clip.encode_image(files).astype(np.float16).astype(np.float32)
    for number in (0, 7, 20):
        scores = embeds @ clip.encode_text(caption(number))[0]
        answer = index.search(caption(number), k=5)
        best = np.argsort(-scores)[:5]
        assert [result.path for result in answer.results] == [str(files[i]) for i in best]
        np.testing.assert_allclose([result.score for result in answer.results], scores[best], atol=1e-5)
        assert (answer.results[0].width, answer.results[0].height) == (224, 224)
        assert answer.is_match
        assert answer.confidence is None  # too few pictures to tell


def test_a_picture_that_is_asked_by_is_left_out(index: Index, scenes: Path):
    index.add(scenes)
    path = scenes / "even" / "02.png"
    for answer in (index.search(path, k=24), index.similar(path, k=24)):
        assert len(answer.results) == 23
        assert str(path) not in {result.path for result in answer.results}


def test_weights_add_and_take_away(index: Index, clip: ClipRuntime, scenes: Path):
    index.add(scenes)
    path = scenes / "odd" / "03.png"
    query = 2 * clip.encode_image(path)[0] - clip.encode_text("a red mug")[0]
    rest = sorted(set(scenes.rglob("*.png")) - {path})
    scores = clip.encode_image(rest) @ query
    answer = index.search([(2.0, path), (-1.0, "a red mug")], k=3)
    assert [result.path for result in answer.results] == [str(rest[i]) for i in np.argsort(-scores)[:3]]


def test_copies_are_one_row_that_says_how_many_there_are(index: Index, scenes: Path, tmp_path: Path):
    for number, name in ((1, "a.png"), (1, "b.png"), (1, "c.png"), (2, "d.png")):
        draw(tmp_path / "copies" / name, number)
    index.add(tmp_path / "copies")
    first, second = index.search(caption(1), k=5).results
    assert (first.path, first.alike) == (
        str(tmp_path / "copies" / "a.png"),
        tuple(str(tmp_path / "copies" / name) for name in ("b.png", "c.png")),
    )
    assert second.path.endswith("d.png")
    assert len(index.search(caption(1), k=5, collapse=False).results) == 4
    (group,) = index.dupes()
    assert [Path(path).name for path in group.paths] == ["a.png", "b.png", "c.png"]
    assert group.score == pytest.approx(1, abs=1e-3)


def test_filters_choose_before_the_nearest_are_taken(index: Index, scenes: Path):
    index.add(scenes)
    found = index.search(caption(0), k=30, filters=Filters(in_=[str(scenes / "odd")])).results
    assert len(found) == 12
    assert all(Path(result.path).parent.name == "odd" for result in found)
    assert index.search(caption(0), filters=Filters(ext=["jpg"])).results == ()


def test_status_counts_what_is_there(index: Index, scenes: Path, tmp_path: Path):
    broken = tmp_path / "odd" / "broken.jpg"
    broken.parent.mkdir()
    broken.write_bytes(b"no picture")
    index.add([scenes, broken.parent])
    status = index.status()
    assert (status.photos, status.contents, status.roots) == (24, 24, tuple(sorted((str(broken.parent), str(scenes)))))
    assert list(status.broken) == [str(broken)]
    assert status.bytes >= index.path.stat().st_size


def test_what_can_not_be_asked_for(index: Index, scenes: Path, tmp_path: Path):
    index.add(scenes)
    for query, error in (
        ("", ConfigError),
        ("  ", ConfigError),
        ("word " * 5000, ConfigError),
        ([], ConfigError),
        ([(1.0, "dog"), (-1.0, "dog")], ConfigError),
        ([(float("nan"), "dog")], ConfigError),
        (["dog"], InputError),
        ([(1.0, 7)], InputError),
        (7, InputError),
    ):
        with pytest.raises(error):
            index.search(query)
    with pytest.raises(ConfigError):
        index.search("dog", k=0)
    with pytest.raises(DataError, match="not in the index"):
        index.similar(tmp_path / "other.jpg")


def test_an_empty_index_has_no_match(index: Index):
    answer = index.search("a red mug")
    assert (answer.results, answer.is_match) == ((), False)
    assert index.dupes() == ()
    assert paths(index) == []
