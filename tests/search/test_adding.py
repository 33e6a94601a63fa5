"""What is encoded again and what is recognised, what is left out, and what is kept."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from edgeclip.errors import ConfigError, DataError
from edgeclip.files import locked
from edgeclip.image import extras
from edgeclip.runtime import ClipRuntime
from edgeclip.search import Filters, Index
from edgeclip.search.database import PRAGMAS
from tests.hostile.camera_files import dng, heic
from tests.hostile.images import saved
from tests.search.conftest import caption, draw, paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        draw(tmp_path / "pictures" / f"{number}.png", number)
    return tmp_path / "pictures"


def test_what_is_unchanged_moved_or_copied_is_not_encoded_again(index: Index, folder: Path, encoded: list[int]):
    assert index.add(folder).encoded == len(encoded) == 4
    numbers = {photo.path: photo.id for photo in index.search("mug", k=9).results}
    encoded.clear()
    assert index.add(folder).unchanged == 4

    os.utime(folder / "0.png", ns=(1, 10**18))
    (folder / "1.png").rename(folder / "moved.png")
    (folder / "sub").mkdir()
    shutil.copy(folder / "2.png", folder / "sub" / "copy.png")
    added = index.add(folder)
    assert (added.found, added.unchanged, added.moved, added.copied, added.encoded) == (5, 2, 1, 1, 0)
    assert encoded == []
    assert paths(index) == [str(folder / name) for name in ("0.png", "2.png", "3.png", "moved.png", "sub/copy.png")]
    after = {photo.path: photo.id for photo in index.search("mug", k=9, collapse=False).results}
    assert after[str(folder / "moved.png")] == numbers[str(folder / "1.png")]
    assert index.add(folder).unchanged == 5


def test_a_moved_folder_is_not_encoded_again(index: Index, folder: Path, encoded: list[int]):
    index.add(folder)
    encoded.clear()
    moved = folder.rename(folder.with_name("elsewhere"))
    assert index.add(moved).moved == 4
    assert encoded == []
    assert paths(index) == [str(moved / f"{number}.png") for number in range(4)]


def test_changed_content_is_encoded_and_its_former_vector_goes(index: Index, folder: Path, encoded: list[int]):
    index.add(folder)
    encoded.clear()
    draw(folder / "0.png", 17)
    assert (index.add(folder).encoded, len(encoded)) == (1, 1)
    assert index.search(caption(17), k=1).results[0].path == str(folder / "0.png")
    assert index.status().contents == 4


def test_contents_that_two_files_exchange_are_recognised(index: Index, folder: Path, encoded: list[int]):
    index.add(folder)
    encoded.clear()
    (folder / "0.png").rename(folder / "x")
    (folder / "1.png").rename(folder / "0.png")
    (folder / "x").rename(folder / "1.png")
    for number in (0, 1):
        os.utime(folder / f"{number}.png")
    index.add(folder)
    assert encoded == []
    assert index.search(caption(1), k=1).results[0].path == str(folder / "0.png")


def test_what_is_not_there_keeps_its_rows(index: Index, folder: Path, encoded: list[int]):
    other = draw(folder.with_name("other") / "9.png", 9).parent
    index.add([folder, other])
    away = other.rename(other.with_name("away"))
    added = index.add([folder, other])
    assert added.unreadable == [str(other)]
    assert len(paths(index)) == 5
    away.rename(other)
    encoded.clear()
    assert index.add([folder, other]).unchanged == 5
    assert encoded == []


def test_broken_files_are_told_of_once_and_read_again_once_they_have_changed(
    index: Index, folder: Path, caplog: pytest.LogCaptureFixture
):
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty.png").write_bytes(b"")
    added = index.add(folder)
    assert (added.encoded, added.broken, added.known_broken) == (4, 2, 0)
    assert [record.getMessage().split(" cannot")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        f"left out: {folder / name}" for name in ("broken.jpg", "empty.png")
    ]
    caplog.clear()
    added = index.add(folder)
    assert (added.broken, added.known_broken, added.unchanged) == (0, 2, 4)
    assert not caplog.records
    draw(folder / "empty.png", 8)
    assert index.add(folder).encoded == 1
    assert list(index.status().broken) == [str(folder / "broken.jpg")]
    (folder / "0.png").write_bytes(b"damaged since")
    assert index.add(folder).broken == 1
    assert str(folder / "0.png") not in paths(index)


def test_names_that_are_no_utf8(index: Index, folder: Path):
    name = os.fsdecode(b"\xe9t\xe9\n.png")
    (folder / "0.png").rename(folder / name)
    index.add(folder)
    assert index.search(caption(0), k=1).results[0].path == str(folder / name)
    assert index.add(folder).unchanged == 4


def test_two_do_not_add_at_once(index: Index, folder: Path):
    with locked(index.path, "taken", fix="wait"), pytest.raises(ConfigError, match="another run writes"):
        index.add(folder)


def test_a_full_disk_leaves_what_was_committed(
    tmp_path: Path, clip: ClipRuntime, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """SQLite reports a limit on its pages as it does a disk without room."""
    monkeypatch.setattr("edgeclip.search.adding.BATCH", 1)
    monkeypatch.setitem(PRAGMAS, "page_size", 512)
    with Index.open(tmp_path / "small.db", clip) as index:
        index.add(folder / "0.png")
        (pages,) = index._database.rows("PRAGMA page_count")[0]
        index._database.rows(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(OSError, match="No space left"):
            index.add(folder)
        there = paths(index)
        assert 1 <= len(there) < 4
        index._database.rows("PRAGMA max_page_count = 100000")
        assert index.add(folder).encoded == 4 - len(there)
        assert len(paths(index)) == 4


def test_what_has_no_end_or_is_too_large_is_not_read(index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "large.jpg").write_bytes(bytes(2000))
    monkeypatch.setattr("edgeclip.search.adding.MAX_FILE_BYTES", 1999)
    monkeypatch.setattr("edgeclip.image.decode.MAX_FILE_BYTES", 1999)
    for path in folder.glob("[0-9].png"):
        path.unlink()
    added = index.add(folder)
    assert (added.found, added.broken, {k: n for k, n in added.skipped.items() if n}) == (1, 1, {"no regular file": 1})
    assert index.add(folder).known_broken == 1


def test_a_folder_that_never_was_is_a_mistake(index: Index, folder: Path):
    with pytest.raises(DataError, match="nothing at"):
        index.add([folder, folder.with_name("other")])
    assert index.status().roots == ()


def test_pictures_of_phones_and_cameras_are_found_by_what_they_show_and_by_their_dates(index: Index, tmp_path: Path):
    pytest.importorskip("pillow_heif")
    pytest.importorskip("rawpy")
    folder = tmp_path / "camera"
    folder.mkdir()
    scenes = [Image.open(draw(tmp_path / f"{number}.png", number)) for number in range(2)]
    (folder / "IMG_0.HEIC").write_bytes(heic(scenes[0], taken=datetime(2020, 5, 4, 12)))
    jpeg = saved(scenes[1], "JPEG", quality=95)
    (folder / "DSC1.DNG").write_bytes(dng(jpeg, scenes[1].size, taken=datetime(2022, 5, 4, 12)))
    assert index.add(folder).encoded == 2
    assert index.search(caption(0), k=1).results[0].path == str(folder / "IMG_0.HEIC")
    assert index.search(caption(1), k=1).results[0].path == str(folder / "DSC1.DNG")
    (found,) = index.search("mug", filters=Filters(before="2021")).results
    assert (found.path, found.taken, (found.width, found.height)) == (
        str(folder / "IMG_0.HEIC"),
        datetime(2020, 5, 4, 12).timestamp(),
        scenes[0].size,
    )


def test_a_picture_without_its_extra_is_read_once_that_is_there(
    index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("pillow_heif")
    (folder / "4.jpg").write_bytes(heic(Image.open(folder / "0.png")))  # as phones name them now and then
    with monkeypatch.context() as patch:
        patch.setattr(extras, "find_spec", lambda name: None)
        for _ in range(2):
            caplog.clear()
            assert index.add(folder).broken == 1
            assert "without the extra `heic`" in caplog.text
    assert index.status().broken == {}
    assert index.add(folder).encoded == 1
