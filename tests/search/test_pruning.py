"""Rows of files that are gone, and rows that only seem to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeclip.search import Index
from tests.search.conftest import draw, paths


@pytest.fixture
def two(index: Index, tmp_path: Path) -> tuple[Path, Path]:
    """Two indexed folders with two pictures each."""
    folders = tmp_path / "here", tmp_path / "disk"
    for number in range(4):
        draw(folders[number % 2] / f"{number}.png", number)
    index.add(folders)
    return folders


def test_rows_of_files_that_are_gone_go_and_are_named(index: Index, two: tuple[Path, Path]):
    (two[0] / "0.png").unlink()
    assert len(paths(index)) == 4
    pruned = index.prune()
    assert (pruned.removed, pruned.kept) == ((str(two[0] / "0.png"),), {})
    assert len(paths(index)) == index.status().contents == 3
    assert index.prune().removed == ()


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_disk_that_is_away_keeps_its_rows_unless_it_is_named(index: Index, two: tuple[Path, Path], how: str):
    two[1].rename(two[1].with_name("away"))
    if how == "empty":
        two[1].mkdir()
    pruned = index.prune()
    assert (pruned.removed, pruned.kept) == ((), {str(two[1]): 2})
    assert len(paths(index)) == 4
    pruned = index.prune([two[1]])
    assert pruned.removed == tuple(str(two[1] / name) for name in ("1.png", "3.png"))
    assert len(paths(index)) == 2
    assert index.status().roots == ((str(two[0]),) if how == "missing" else tuple(sorted(map(str, two))))


def test_a_file_that_can_not_be_looked_at_is_not_gone(
    index: Index, two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.lstat", refused)
    assert index.prune().removed == ()
