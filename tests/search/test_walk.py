"""Which files of folders are pictures to be indexed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeclip.bulk.listing import image_suffixes
from edgeclip.image import extras
from edgeclip.search.walk import Walk


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def walked(folder: Path, *exclude: str) -> tuple[list[str], Walk]:
    walk = Walk([str(folder)], exclude)
    return [str(Path(path).relative_to(folder)) for path in walk], walk


def test_what_systems_and_programs_keep_beside_pictures_is_left_out(tmp_path: Path):
    made(tmp_path, "a.jpg", "sub/b.PNG", ".hidden/c.jpg", "._a.jpg", "@eaDir/a.jpg/SYNO.jpg", "node_modules/d.png")
    made(tmp_path, "#recycle/e.jpg", "$RECYCLE.BIN/f.jpg", ".Trash-1000/g.jpg", "private/.nomedia", "private/sub/h.jpg")
    made(tmp_path, "System Volume Information/i.jpg", "notes.txt", "clip.MOV", "README")
    found, walk = walked(tmp_path)
    assert found == ["a.jpg", "sub/b.PNG"]
    assert +walk.skipped == {".txt": 1, ".mov": 1, "without suffix": 1}


@pytest.fixture
def extras_there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: name if name in request.param else None)
    image_suffixes.cache_clear()
    yield
    image_suffixes.cache_clear()


@pytest.mark.parametrize(
    ("extras_there", "left", "beside", "skipped"),
    [
        ((), [], 2, {".cr2": 1, ".dng": 2, ".heic": 1}),
        (("rawpy",), ["DSC3.CR2", "IMG4.DNG", "sub/DSC1.dng"], 2, {".heic": 1}),
        (("rawpy", "pillow_heif"), ["DSC3.CR2", "IMG4.HEIC", "sub/DSC1.dng"], 3, {}),
    ],
    indirect=["extras_there"],
    ids=["base", "raw", "raw and heic"],
)
@pytest.mark.usefixtures("extras_there")
def test_raw_files_count_once_beside_what_the_camera_made_of_them(
    tmp_path: Path, left: list[str], beside: int, skipped: dict[str, int]
):
    made(tmp_path, "DSC1.JPG", "DSC1.ARW", "dsc2.jpeg", "DSC2.nef", "DSC3.CR2", "sub/DSC1.dng", "IMG4.HEIC", "IMG4.DNG")
    found, walk = walked(tmp_path)
    assert found == sorted(["DSC1.JPG", "dsc2.jpeg", *left], key=lambda name: ("/" in name, name))
    assert walk.beside == beside
    assert +walk.skipped == skipped


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.png", ["a.jpg", "sub/c.jpg"]),
        ("sub", ["a.jpg", "b.png"]),
        ("sub/*.jpg", ["a.jpg", "b.png"]),
        ("SUB", ["a.jpg", "b.png", "sub/c.jpg"]),
    ],
)
def test_patterns_leave_out_names_and_places(tmp_path: Path, pattern: str, left: list[str]):
    made(tmp_path, "a.jpg", "b.png", "sub/c.jpg")
    assert walked(tmp_path, pattern)[0] == left


def test_folders_that_are_linked_or_missing_are_told_of(tmp_path: Path):
    made(tmp_path / "real", "a.jpg")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "real")
    walk = Walk([str(tmp_path / "tree"), str(tmp_path / "none")], ())
    assert list(walk) == []
    assert +walk.skipped == {"linked folder": 1}
    assert walk.unreadable == [str(tmp_path / "none")]


def test_a_folder_that_can_not_be_read_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    scandir = __import__("os").scandir

    def refused(path: str):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refused)
    found, walk = walked(tmp_path)
    assert found == ["a/1.jpg", "c/3.jpg"]
    assert walk.unreadable == [str(tmp_path / "b")]
