"""Pictures without captions, each beside a text of the list; no copy of a picture, no text twice, by the seed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.data.data_settings import DataOptions
from edgeclip.data.load_data import load_data
from edgeclip.data.pictures import built_in_texts, load_pictures
from edgeclip.data.split import to_choose
from edgeclip.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(20):
        path = folder / ("more" if number % 3 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    (folder / ".thumbnails").mkdir()
    shutil.copy(folder / "0.png", folder / ".thumbnails")
    (folder / "notes.pdf").write_bytes(b"no picture")
    return folder


def test_the_list_is_of_short_texts_that_differ():
    texts = built_in_texts()
    assert len(texts) == len({text.lower() for text in texts}) > 1500
    assert all(text == text.strip() and 2 <= len(text.split()) <= 12 for text in texts)


def test_every_picture_has_a_text_of_its_own_and_copies_count_once(photos: Path):
    shutil.copy(photos / "0.png", photos / "copy.png")
    found = load_pictures(photos, seed=0)
    assert found is not None
    assert (found.name, len(found), found.captioned) == ("photos", 20, False)
    assert (found.rows.read, found.rows.left_out) == (21, {"copies of others": 1})
    texts = [record.captions for record in found.records]
    assert len(set(texts)) == 20
    assert {len(captions) for captions in texts} == {1}
    assert load_pictures(photos, seed=0) == found
    assert [record.captions for record in load_pictures(photos, seed=1).records] != texts


def test_more_pictures_than_texts_are_as_many(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgeclip.data.pictures.built_in_texts", lambda: ["a", "b", "c"])
    assert len(load_pictures(photos, seed=0)) == 3


def test_roles_share_neither_picture_nor_text(photos: Path):
    parts = to_choose(str(photos), pairs=100, calibrate=16, seed=0, options=DataOptions())[:3]
    assert [len(part) for part in parts] == [2, 9, 9]
    taken = [record for part in parts for record in (part.captions.records[i] for i in part.indices)]
    assert len({record.name for record in taken}) == len({record.captions for record in taken}) == 20


def test_only_who_asks_for_them_has_them(photos: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"without captions; expected captions\.csv"):
        load_data(str(photos), samples=0, seed=0)
    assert not load_data(str(photos), samples=0, seed=0, without_captions=True).captioned
    (photos / "1.txt").write_text("a caption")
    (photos / "more" / "1.txt").write_text("a caption")
    assert load_data(str(photos), samples=0, seed=0, without_captions=True).captioned
    (tmp_path / "other").mkdir()
    assert load_pictures(tmp_path / "other", seed=0) is None


def test_two_tables_are_not_passed_over(photos: Path):
    for name in ("a.csv", "b.csv"):
        (photos / name).write_text("image,caption\n0.png,one\n")
    with pytest.raises(DataError, match=r"2 tables; .* `data` .*a\.csv"):
        load_data(str(photos), samples=0, seed=0, without_captions=True)
