"""Files that are no index, or not one for this bundle: one line, and what to do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.errors import DataError
from edgeclip.runtime import ClipRuntime
from edgeclip.search import Index
from edgeclip.search.database import SCHEMA


@pytest.fixture
def db(tmp_path: Path, clip: ClipRuntime, scenes: Path) -> Path:
    with Index.open(tmp_path / "photos.db", "builtin:tabletop") as index:
        index.add(scenes)
    return tmp_path / "photos.db"


def newer(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")


def of_another_bundle(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE meta SET value = 'ffffffffffffffff' WHERE key = 'fingerprint'")


def of_another_program(db: Path) -> None:
    db.unlink()
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda db: db.unlink(), "no index at"),
    "empty": (lambda db: db.write_bytes(b""), "a database of another program"),
    "no database": (lambda db: db.write_bytes(b"picture" * 1000), "not a database"),
    "truncated": (lambda db: db.write_bytes(db.read_bytes()[:20_000]), "malformed"),
    "a folder": (lambda db: (db.unlink(), db.mkdir()), "a folder; expected an index, which is a file; give --db "),
    "a pipe": (lambda db: (db.unlink(), os.mkfifo(db)), "a device, pipe or socket; expected an index, which is a file"),
    "a device": (lambda db: (db.unlink(), db.symlink_to(os.devnull)), "a device, pipe or socket"),
    "newer": (newer, f"an index of schema {SCHEMA + 1}; expected schema {SCHEMA}; update edgeclip"),
    "of another bundle": (of_another_bundle, "edgeclip reindex --db"),
    "of another program": (of_another_program, "a database of another program"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("command", [["search", "a red mug"], ["status"], ["dupes"], ["prune"]], ids=lambda c: c[0])
def test_one_line_says_what_is_wrong(mistake: Callable[..., str], db: Path, name: str, command: list[str]):
    damage, message = DAMAGE[name]
    damage(db)
    for suffix in ("-wal", "-shm"):
        db.with_name(db.name + suffix).unlink(missing_ok=True)
    assert message in mistake(*command, "--db", db)


@pytest.mark.parametrize("name", ["a folder", "a pipe", "a device"])
def test_a_new_index_takes_the_place_of_a_file_alone(mistake: Callable[..., str], db: Path, scenes: Path, name: str):
    damage, message = DAMAGE[name]
    damage(db)
    assert message in mistake("index", scenes, "--db", db, "--bundle", "builtin:tabletop")


def test_an_index_that_can_not_be_made_leaves_nothing(
    tmp_path: Path, clip: ClipRuntime, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgeclip.search.database.TABLES", "CREATE TABLE meta (key); CREATE TABLE meta (key)")
    with pytest.raises(DataError):
        Index.open(tmp_path / "photos.db", clip)
    assert list(tmp_path.iterdir()) == []


TAMPERED = {
    "UPDATE meta SET value = 'x' WHERE key = 'embedding_size'": "Expected `int`, got `str`",
    "UPDATE meta SET value = 9 WHERE key = 'embedding_size'": "embeddings of 9 numbers",
    "DELETE FROM meta WHERE key = 'fingerprint'": "missing required field `fingerprint`",
    "UPDATE vectors SET embedding = substr(embedding, 3) WHERE id = 7": "the vector 7 is of another size",
    "UPDATE vectors SET embedding = zeroblob(length(embedding)) WHERE id = 7": "the vector 7 is none that",
    "UPDATE vectors SET embedding = 'text' WHERE id = 7": "which is damaged",
    "UPDATE vectors SET width = 'wide'": "Expected `int`, got `str`",
    "UPDATE photos SET taken = 1e300": "Expected `float`",
    "UPDATE photos SET path = x'2f00' WHERE id = 3": "Expected `str`, got `bytes`",
    "UPDATE photos SET path = 'file:/a%00b' WHERE id = 3": "a path with a zero byte",
    "UPDATE photos SET path = CAST(x'2fff' AS TEXT) WHERE id = 3": "Could not decode",
    "UPDATE calibration SET value = '{}' WHERE key = 'fit'": "whose calibration is damaged",
    "UPDATE calibration SET value = replace(value, 'spread\":', 'spread\":-') WHERE key = 'fit'": "is damaged",
    "UPDATE calibration SET value = x'00' WHERE key = 'sample'": "whose calibration is damaged",
    "DELETE FROM calibration WHERE key = 'sample'": "whose calibration is damaged",
}


@pytest.mark.parametrize("statement", TAMPERED)
def test_rows_that_are_not_what_was_written_are_one_line(tmp_path: Path, clip: ClipRuntime, statement: str):
    db = calibrated(tmp_path, clip)
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute(statement)
    with pytest.raises(DataError) as caught, Index.open(db, clip) as index:
        index.search("a red mug", k=100, collapse=False)
    assert TAMPERED[statement] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["fit", "sample", "texts"])
def test_a_calibration_that_is_damaged_is_found_out_again(tmp_path: Path, clip: ClipRuntime, key: str):
    db = calibrated(tmp_path, clip)
    with Index.open(db, clip) as index:
        before = index.search("a red mug").confidence
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE calibration SET value = x'ff' || value WHERE key = ?", (key,))
        if key == "texts":
            connection.execute("DELETE FROM calibration WHERE key = 'fit'")
    with Index.open(db, clip) as index:
        index.add(tmp_path / "pictures")
        assert index.search("a red mug").confidence == pytest.approx(before, abs=0.01)  # of texts in float16


def calibrated(folder: Path, clip: ClipRuntime) -> Path:
    """An index of 50 pictures, which is as few as are calibrated."""
    (folder / "pictures").mkdir()
    for number in range(50):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
    with Index.open(folder / "photos.db", clip) as index:
        index.add(folder / "pictures")
    return folder / "photos.db"


def test_another_bundle_is_refused_and_nothing_is_lost(mistake: Callable[..., str], db: Path, clip: ClipRuntime):
    before = db.read_bytes()
    of_another_bundle(db)
    line = mistake("index", db.parent, "--db", db, "--bundle", "builtin:tabletop")
    assert "made with the bundle of the fingerprint ffffffffffffffff" in line
    assert f"edgeclip reindex --db {db} --bundle BUNDLE" in line
    assert len(db.read_bytes()) == len(before)


def test_a_new_index_needs_a_bundle(mistake: Callable[..., str], tmp_path: Path, scenes: Path):
    assert "add --bundle builtin:tabletop" in mistake("index", scenes, "--db", tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    assert "no FOLDERS" in mistake("index", "--db", tmp_path / "new.db", "--bundle", "builtin:tabletop")
