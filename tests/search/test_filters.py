"""Filters as SQL, on rows that were written by hand."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest

from edgeclip.bulk.path_names import path_from_text, path_to_text
from edgeclip.errors import ConfigError
from edgeclip.search.filters import Filters, condition

ODD = os.fsdecode(b"\xe9t\xe9")
PHOTOS = {
    "/p/a.JPG": datetime(2020, 1, 1),
    "/p/b.png": datetime(2021, 7, 31, 12),
    "/p/sub/c.jpg": datetime(2021, 8, 1),
    "/p-other/d.jpeg": datetime(2022, 1, 1),
    f"/p/{ODD}.jpg": datetime(2023, 1, 1),
    f"/{ODD}/e.jpg": datetime(2024, 1, 1),
}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, list(PHOTOS)),
        ({"after": "2021-08-01"}, ["/p/sub/c.jpg", "/p-other/d.jpeg", f"/p/{ODD}.jpg", f"/{ODD}/e.jpg"]),
        ({"before": "2021"}, ["/p/a.JPG"]),
        ({"after": "2021-07", "before": "2021-08"}, ["/p/b.png"]),
        ({"in_": ["/p"]}, ["/p/a.JPG", "/p/b.png", "/p/sub/c.jpg", f"/p/{ODD}.jpg"]),
        ({"in_": ["/p/sub/", "/p-other"]}, ["/p/sub/c.jpg", "/p-other/d.jpeg"]),
        ({"in_": [f"/{ODD}"]}, [f"/{ODD}/e.jpg"]),
        ({"in_": ["/"]}, list(PHOTOS)),
        ({"ext": ["jpg"]}, ["/p/a.JPG", "/p/sub/c.jpg", f"/p/{ODD}.jpg", f"/{ODD}/e.jpg"]),
        ({"ext": [".PNG", "jpeg"]}, ["/p/b.png", "/p-other/d.jpeg"]),
        ({"ext": ["jpg"], "in_": ["/p"], "before": "2021"}, ["/p/a.JPG"]),
    ],
)
def test_what_may_be_found(filters: dict[str, object], expected: list[str]):
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE photos (path TEXT, taken REAL)")
    connection.executemany(
        "INSERT INTO photos VALUES (?, ?)",
        [(path_to_text(path), moment.timestamp()) for path, moment in PHOTOS.items()],
    )
    sql, values = condition(Filters(**filters))
    rows = connection.execute(f"SELECT path FROM photos WHERE {sql or 'TRUE'}", values)  # noqa: S608
    assert sorted(path_from_text(path) for (path,) in rows) == sorted(expected)


@pytest.mark.parametrize("date", ["yesterday", "", "2021-13", "31.7.2021", "99999"])
def test_dates_that_are_none(date: str):
    with pytest.raises(ConfigError, match="2024-07-31"):
        condition(Filters(after=date))


def test_a_relative_folder_is_one_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path.resolve()}/sub/" in condition(Filters(in_=["sub"]))[1]
