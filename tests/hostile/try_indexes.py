"""Open tampered indexes: each works, or ends in one line."""

from __future__ import annotations

import os
import random
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
from PIL import Image

from edgeclip.errors import EdgeclipError
from edgeclip.runtime import load
from edgeclip.search import Filters, Index
from tests.hostile.images import blank, flip, shuffle
from tests.hostile.quiet import quiet

COLUMNS = (
    *("meta.value", "meta.key", "roots.path", "vectors.id", "vectors.hash", "vectors.width", "vectors.height"),
    *("vectors.embedding", "photos.id", "photos.path", "photos.size", "photos.mtime_ns", "photos.taken"),
    *("photos.vector", "calibration.key", "calibration.value", "broken.path", "broken.size", "broken.reason"),
    "sqlite_sequence.seq",
)
ATTEMPTS: dict[str, Callable[[Index, Path], object]] = {
    "search": lambda index, _: index.search("a red mug", k=100, collapse=False),
    "search by date": lambda index, _: index.search("a red mug", k=3, filters=Filters(after="1999")),
    "similar": lambda index, pictures: index.similar(pictures / "1.png"),
    "photo": lambda index, _: index.photo(1),
    "status": lambda index, _: index.status(),
    "dupes": lambda index, _: index.dupes(),
    "prune": lambda index, _: index.prune(),
    "add": lambda index, pictures: index.add(pictures),
}


def run(number: int, seed: int) -> dict[str, object]:
    """Try so many, half with a value of a row changed, half with bytes of the file."""
    rng = random.Random(seed)
    summary: dict[str, object] = {"works": 0, "errors": 0, "wrong": []}
    with quiet(), TemporaryDirectory() as temporary, patch("edgeclip.search.scan.MAX_TAIL", 20):
        folder, clip = Path(temporary), load("builtin:tabletop", threads=1)
        (folder / "pictures").mkdir()
        (folder / "pictures" / "broken.png").write_bytes(b"?")
        for n in range(60):
            pixels = np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / f"{n}.png")
        with Index.open(folder / "photos.db", clip) as index:
            index.add(folder / "pictures")
        intact = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        for _ in range(number):
            name = _tamper(folder, intact, rng)
            for attempt, call in ATTEMPTS.items():
                try:
                    with Index.open(folder / "photos.db", clip) as index:
                        call(index, folder / "pictures")
                    summary["works"] += 1
                except (EdgeclipError, OSError) as error:
                    summary["errors"] += 1
                    if "\n" in str(error):
                        summary["wrong"].append(f"{name}, {attempt}: {error}")
                except Exception as error:  # noqa: BLE001 - what is looked for
                    summary["wrong"].append(f"{name}, {attempt}: {type(error).__name__} {error}"[:300])
    return summary


def _tamper(folder: Path, intact: dict[str, bytes], rng: random.Random) -> str:
    """Put the intact files back and damage one of them; what was done."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    for name, data in intact.items():
        (folder / name).write_bytes(data)
    if rng.random() < 0.5:
        name = rng.choice(list(intact))
        (folder / name).write_bytes(rng.choice((flip, blank, shuffle))(intact[name], rng))
        return f"bytes of {name}"
    table, column = rng.choice(COLUMNS).split(".")
    with closing(sqlite3.connect(folder / "photos.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.text_factory = bytes
        rows = connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()  # noqa: S608
        (value,) = rng.choice(rows)
        kind, changed = _changed(value, rng)
        where = "CAST(? AS TEXT)" if isinstance(value, bytes) and column not in ("hash", "embedding") else "?"
        sql = f"UPDATE OR IGNORE {table} SET {column} = {kind} WHERE {column} = {where}"  # noqa: S608
        with suppress(sqlite3.IntegrityError):  # a number where only a number can be
            connection.execute(sql, (changed, value))
    return f"{table}.{column} to {kind} {str(changed)[:40]}"


def _changed(value: object, rng: random.Random) -> tuple[str, object]:
    """SQL and value of what takes a value's place: of another type now and then."""
    if isinstance(value, bytes):
        data = rng.choice((flip, blank, shuffle))(value, rng) if len(value) > 3 else rng.randbytes(4)
    elif isinstance(value, float):
        data = None
        value = struct.unpack("<d", flip(struct.pack("<d", value), rng))[0]
    else:
        data, value = None, rng.choice((-1, 0, 2**62, 2**63 - 1, -(2**63), int(value or 0) ^ (1 << rng.randrange(62))))
    if rng.random() < 0.3:
        return "?", rng.choice(("text", 7, -1, 1e300, 0.5, os.urandom(8), b"", ""))
    return ("?", value) if data is None else (rng.choice(("?", "CAST(? AS TEXT)")), data)
