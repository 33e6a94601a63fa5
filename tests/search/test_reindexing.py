"""An index made anew with another bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeclip.errors import DataError
from edgeclip.runtime import ClipRuntime, load
from edgeclip.search import Index
from edgeclip.search.reindexing import staging_path
from tests.search.conftest import caption, draw


@pytest.fixture
def other(bundles: dict[str, Path]) -> ClipRuntime:
    return load(bundles["fp32"], threads=1)


@pytest.fixture
def db(tmp_path: Path, clip: ClipRuntime) -> Path:
    for number in range(4):
        draw(tmp_path / "pictures" / f"{number}.png", number)
    draw(tmp_path / "pictures" / "copy.png", 0)
    with Index.open(tmp_path / "photos.db", clip) as index:
        index.add(tmp_path / "pictures")
    return tmp_path / "photos.db"


def test_all_vectors_are_the_other_bundles(db: Path, other: ClipRuntime):
    assert Index.reindex(db, other).found == 5
    with Index.open(db) as index:
        assert index.clip.bundle.manifest.fingerprint == other.bundle.manifest.fingerprint
        assert index.status().roots == (str(db.parent / "pictures"),)
        query = other.encode_text(caption(0))[0]
        for result in index.search(caption(0), k=9, collapse=False).results:
            expected = other.encode_image(result.path)[0] @ query
            np.testing.assert_allclose(result.score, expected, atol=2e-3)
    assert sorted(path.name for path in db.parent.iterdir()) == ["photos.db", "pictures"]


def test_what_can_not_be_read_now_leaves_everything_as_it_was(db: Path, clip: ClipRuntime, other: ClipRuntime):
    (db.parent / "pictures" / "1.png").rename(db.parent / "away.png")
    with pytest.raises(DataError, match=r"1 indexed pictures that can't be read now .*1\.png"):
        Index.reindex(db, other)
    with Index.open(db) as index:
        assert index.clip.bundle.manifest.fingerprint == clip.bundle.manifest.fingerprint
        assert index.status().photos == 5
    (db.parent / "away.png").rename(db.parent / "pictures" / "1.png")
    assert Index.reindex(db, other).encoded == 1  # the rest was gathered before
    assert not staging_path(db).exists()


def test_an_index_that_is_open_elsewhere_says_so(db: Path, clip: ClipRuntime, other: ClipRuntime):
    with Index.open(db, clip) as index:
        Index.reindex(db, other)
        with pytest.raises(DataError, match="made anew with another bundle"):
            index.search("a red mug")
