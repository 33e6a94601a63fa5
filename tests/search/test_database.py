"""Files that are no index, or not one for this bundle: one line, and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

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
    "a folder": (lambda db: (db.unlink(), db.mkdir()), "no index at"),
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
