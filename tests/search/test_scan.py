"""The scan of an index with bits against an exact one, while rows come and go."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgeclip.errors import ReplacedError
from edgeclip.search import scan as module
from edgeclip.search.database import Database, create
from edgeclip.search.scan import Scan
from tests.search.test_sign_bits import unit


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """1,500 vectors, which are more than are scanned without bits here."""
    monkeypatch.setattr(module, "MAX_TAIL", 200)
    monkeypatch.setattr(module, "SHORTLIST", 100)
    create(tmp_path / "photos.db", {"bundle": "b", "fingerprint": "f", "embedding_size": 64})
    opened = Database(tmp_path / "photos.db")
    insert(opened, 0, 1500)
    yield opened
    opened.close()


def insert(database: Database, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((count // 10, 64)).repeat(10, 0)  # ten pictures of each place
    rows = unit(places + 0.3 * rng.standard_normal((count, 64)) + 0.2)
    hashes = (hashlib.sha256(b"%d %d" % (seed, n)).digest() for n in range(count))
    database.insert(
        "INSERT INTO vectors (hash, width, height, embedding) VALUES (?, 1, 1, ?)",
        [(hash_, row.astype("<f2").tobytes()) for hash_, row in zip(hashes, rows, strict=True)],
    )


def exact(database: Database, query: np.ndarray, count: int = 5) -> list[int]:
    rows = database.rows("SELECT id, embedding FROM vectors")
    scores = np.array([np.frombuffer(row, "<f2").astype(np.float32) @ query for _, row in rows])
    return [rows[i][0] for i in np.argsort(-scores)[:count]]


def check(scan: Scan, database: Database) -> None:
    """The nearest five are all found for queries that are near pictures."""
    rng = np.random.default_rng(9)
    for id_, row in database.rows("SELECT id, embedding FROM vectors ORDER BY id DESC LIMIT 5"):
        query = unit(np.frombuffer(row, "<f2").astype(np.float32) + 0.05 * rng.standard_normal(64).astype(np.float32))
        ids, embeds = scan.nearest(query, 5, is_picture=True)
        assert ids[0] == id_
        assert ids[:5].tolist() == exact(database, query)
        assert (np.diff(embeds @ query) <= 1e-6).all()


def test_rows_that_come_and_go_are_found_and_not_found(database: Database):
    scan = Scan(database)
    check(scan, database)
    made = scan.path.read_bytes()
    insert(database, 1, 150)  # few: they are scanned beside the bits
    check(scan, database)
    check(Scan(database), database)
    assert scan.path.read_bytes() == made
    insert(database, 2, 150)  # many: the bits are made anew
    check(scan, database)
    assert len(scan.path.read_bytes()) > len(made)
    database.rows("DELETE FROM vectors WHERE id % 2 = 0")
    check(scan, database)
    scan.refresh()
    check(Scan(database), database)
    assert len(scan.path.read_bytes()) < len(made)


def test_only_those_that_may_be(database: Database):
    scan = Scan(database)
    (row,) = database.rows("SELECT embedding FROM vectors WHERE id = 700")[0]
    query = np.frombuffer(row, "<f2").astype(np.float32)
    for among in (set(range(1, 1400)), {3, 4, 5}, set()):
        ids, _ = scan.nearest(query, 5, among, is_picture=True)
        assert set(ids.tolist()) <= among
        assert len(ids) >= min(5, len(among))
    nearest = [id_ for id_ in exact(database, query, 1500) if id_ % 3 == 0][:5]
    assert scan.nearest(query, 5, set(range(0, 1500, 3)), is_picture=True)[0][:5].tolist() == nearest


def test_where_the_bits_can_not_be_kept_they_are_made_each_time(database: Database, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("edgeclip.search.sign_bits.write_atomically", refused)
    scan = Scan(database)
    check(scan, database)
    assert not scan.path.exists()


def test_an_index_that_was_made_anew_is_followed(database: Database):
    scan = Scan(database)
    check(scan, database)
    database.rows("UPDATE meta SET value = 'another' WHERE key = 'uuid'")
    with database.transaction() as connection:  # as many as before, and no id of theirs
        newest = connection.execute("SELECT max(id) FROM vectors").fetchone()
        connection.execute("UPDATE vectors SET id = id + ?", newest)
    check(scan, database)


def test_an_index_of_another_bundle_by_now_is_refused(database: Database):
    scan = Scan(database)
    check(scan, database)
    database.rows("UPDATE meta SET value = 'another' WHERE key = 'fingerprint'")
    with pytest.raises(ReplacedError, match="open it again"):
        check(scan, database)
