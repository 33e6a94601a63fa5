"""`python benchmarks/search.py [--vectors N] [--files N] [--out FILE]`: what search costs, and how often it is right.

One JSON object: the scan of many vectors against an exact one and against other ways of counting bits, where those are
installed (faiss-cpu, sqliteai-vector); runs over unchanged and over moved files; and how often the built-in world's
absent captions are told from those whose picture is there.

Shape legend: N vectors, Q queries, E embedding size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from abstaining import abstaining
from numpy.typing import NDArray
from PIL import Image

import edgeclip
from edgeclip.bulk.path_names import path_to_text
from edgeclip.cpu import processors
from edgeclip.data.tabletop import render, sample_scene
from edgeclip.evaluate.environment import environment
from edgeclip.search import Index, sign_bits
from edgeclip.search.database import Database, create
from edgeclip.search.scan import SHORTLIST, Scan, bits_path

E, K, BLOCK = 512, 10, 50_000
Floats = NDArray[np.float32]


class World:
    """Vectors as CLIP's are: pictures in a narrow cone, in clusters, most of their variance in few directions; texts in
    a cone of their own, each near its picture in what pictures differ by.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        spectrum = np.arange(1, E + 1) ** -0.5
        self.axes = (spectrum[:, None] * np.linalg.qr(self.rng.standard_normal((E, E)))[0]).astype(np.float32)
        self.axes *= np.float32(0.75 / np.linalg.norm(spectrum))
        self.centres = self.rng.standard_normal((2_000, E)).astype(np.float32)
        self.image_mean, self.text_mean = (
            np.float32(length) * unit(self.rng.standard_normal(E).astype(np.float32)) for length in (0.65, 0.8)
        )

    def pictures(self, count: int) -> Floats:
        """Unit vectors (N, E)."""
        own = self.rng.standard_normal((count, E), dtype=np.float32)
        mixed = 0.7 * self.centres[self.rng.integers(len(self.centres), size=count)] + 0.7 * own
        return unit(self.image_mean + mixed @ self.axes)

    def texts(self, pictures: Floats) -> Floats:
        """Of each picture one (N, E), at a cosine of about 0.3."""
        noise = self.rng.standard_normal(pictures.shape, dtype=np.float32) @ self.axes
        return unit(self.text_mean + 0.4 * (pictures - self.image_mean) + 0.5 * noise)


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def fill(path: Path, world: World, count: int) -> Iterator[Floats]:
    """An index of so many pictures without files; gives the vectors as they are stored, a block at a time."""
    create(path, {"bundle": "none", "fingerprint": "none", "embedding_size": E})
    with closing(sqlite3.connect(path)) as connection:
        for start in range(0, count, BLOCK):
            rows = world.pictures(min(BLOCK, count - start)).astype(np.float16)
            numbers = range(start + 1, start + len(rows) + 1)
            with connection:
                connection.executemany(
                    "INSERT INTO vectors VALUES (?, ?, 4032, 3024, ?)",
                    (
                        (n, hashlib.sha256(b"%d" % n).digest(), row.tobytes())
                        for n, row in zip(numbers, rows, strict=True)
                    ),
                )
                connection.executemany(
                    "INSERT INTO photos VALUES (?, ?, 3000000, ?, 1.7e9, ?)",
                    ((n, f"/mnt/photos/2024/2024-07-{n % 31:02d}/IMG_{n:08d}.JPG", 10**18 + n, n) for n in numbers),
                )
            yield rows.astype(np.float32)


def timed(call: Callable[[Floats], Any], queries: Floats) -> dict[str, float]:
    """Milliseconds of a call, one query at a time, after five to warm up."""
    for query in queries[:5]:
        call(query)
    times = []
    for query in queries:
        start = time.perf_counter()
        call(query)
        times.append(1e3 * (time.perf_counter() - start))
    return {"p50_ms": round(float(np.median(times)), 2), "p95_ms": round(float(np.quantile(times, 0.95)), 2)}


def exact(blocks: list[Floats], queries: Floats) -> NDArray[np.int64]:
    """Ids of the K nearest (Q, K)."""
    scores, ids, start = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64), 1
    for block in blocks:
        found = queries @ block.T
        best = np.argpartition(-found, K, axis=1)[:, :K]
        scores = np.concatenate([scores, np.take_along_axis(found, best, 1)], 1)
        ids = np.concatenate([ids, best + start], 1)
        order = np.argsort(-scores, axis=1)[:, :K]
        scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
        start += len(block)
    return ids


def scan(folder: Path, count: int, asked: int = 200) -> dict[str, Any]:
    """The scan as it is used, from bits in a file and float16 in SQLite, against exact scans."""
    path, world = folder / "photos.db", World(0)
    blocks = list(fill(path, world, count))
    fresh = world.pictures(asked)
    texts = world.texts(fresh)
    database = Database(path)
    start = time.perf_counter()
    Scan(database).refresh()
    report: dict[str, Any] = {"vectors": count, "bits_made_s": round(time.perf_counter() - start, 1)}
    scanner = Scan(database)
    bits = sign_bits.read(bits_path(path), database.meta.uuid, E)
    if bits is None:
        raise RuntimeError("no bits: fewer vectors than are scored without")
    for kind, queries in (("image", fresh), ("text", texts)):
        nearest = partial(scanner.nearest, count=K, is_picture=kind == "image")
        found = [nearest(query)[0][:K] for query in queries]
        truth = exact(blocks, queries)
        recall = np.mean([len(set(a.tolist()) & set(b.tolist())) / K for a, b in zip(found, truth, strict=True)])
        report[kind] = {"recall_at_10": round(float(recall), 4), **timed(nearest, queries)}
    report["float32_in_sqlite"] = timed(lambda query: _read_and_multiply(path, query), fresh[:6])
    whole = np.concatenate(blocks)
    report["float32_in_memory"] = timed(lambda query: np.argpartition(-(whole @ query), K)[:K], fresh[:40])
    report["times_faster_than_sqlite_float32"] = round(
        report["float32_in_sqlite"]["p50_ms"] / report["image"]["p50_ms"], 1
    )
    size = sum(file.stat().st_size for file in folder.iterdir())
    report["bytes_a_photo"] = round(size / count)
    report["bit_counting"] = candidates(folder, whole, bits, fresh[:50])
    database.close()
    return report


def _read_and_multiply(path: Path, query: Floats) -> NDArray[np.int64]:
    """What rclip 4 does: every vector out of SQLite, then one product. (Its own are float32, twice the bytes.)"""
    with closing(sqlite3.connect(path)) as connection:
        data = b"".join(row for (row,) in connection.execute("SELECT embedding FROM vectors"))
    return np.argpartition(-(np.frombuffer(data, np.float16).reshape(-1, E).astype(np.float32) @ query), K)[:K]


def candidates(folder: Path, whole: Floats, bits: sign_bits.SignBits, queries: Floats) -> dict[str, Any]:
    """The shortlist alone: NumPy on words, and other libraries where they are installed."""
    report: dict[str, Any] = {"numpy": timed(lambda q: bits.nearest(q, SHORTLIST, is_picture=True), queries)}
    rotated, asked = ((vectors - bits.code.mean) @ bits.code.rotation for vectors in (whole, queries))
    if find_spec("faiss"):
        faiss = import_module("faiss")
        index = faiss.IndexBinaryFlat(E)
        index.add(sign_bits.packed(rotated).view(np.uint8))
        report["faiss_binary"] = timed(
            lambda q: index.search(sign_bits.packed(q[None]).view(np.uint8), SHORTLIST), asked
        )
    if find_spec("sqlite_vector") and hasattr(sqlite3.Connection, "enable_load_extension"):
        report["sqliteai_vector_1bit"] = _sqliteai(folder / "vector.db", rotated, asked)
    return report


def _sqliteai(path: Path, centred: Floats, queries: Floats) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        connection.enable_load_extension(True)
        connection.load_extension(
            str(Path(str(import_module("sqlite_vector").__file__)).parent / "binaries" / "vector")
        )
        connection.execute("CREATE TABLE v (id INTEGER PRIMARY KEY, e BLOB)")
        with connection:
            connection.executemany("INSERT INTO v (e) VALUES (?)", ((row.tobytes(),) for row in centred))
        connection.execute(f"SELECT vector_init('v', 'e', 'type=FLOAT32,dimension={E},distance=COSINE')")
        connection.execute("SELECT vector_quantize('v', 'e', 'qtype=1BIT,max_memory=512MB')")
        connection.execute("SELECT vector_quantize_preload('v', 'e')")
        query = f"SELECT rowid, distance FROM vector_quantize_scan('v', 'e', ?, {SHORTLIST})"  # noqa: S608
        return timed(lambda q: connection.execute(query, (q.tobytes(),)).fetchall(), queries)


def random_b32(folder: Path, vocabulary: Path | None) -> Path:
    """An int8 bundle of a ViT-B/32 with random weights, and OpenAI's vocabulary where that is at hand."""
    from peer_models import write_bundle, write_checkpoint

    write_checkpoint(folder / "checkpoint", vocabulary)
    write_bundle(folder, "int8")
    return folder / "bundle-int8"


def files(folder: Path, count: int, bundle: str | Path) -> dict[str, Any]:
    """Runs over many small pictures that are indexed, after nothing and after a move of half of them."""
    pictures, db = folder / "pictures", folder / "files.db"
    seed = folder / "seed.jpg"
    Image.fromarray(render(sample_scene("benchmark", 0, 0))).resize((64, 64)).save(seed)
    content, rng = seed.read_bytes(), np.random.default_rng(0)
    with Index.open(db, bundle) as index:
        size = index.clip.embedding_size
    with closing(sqlite3.connect(db)) as connection, connection:
        for number in range(count):
            path = pictures / f"{number // 1000:04d}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content + b"%d" % number
            path.write_bytes(data)
            status, row = path.stat(), unit(rng.standard_normal(size, dtype=np.float32)).astype(np.float16).tobytes()
            connection.execute(
                "INSERT INTO vectors VALUES (?, ?, 64, 64, ?)", (number + 1, hashlib.sha256(data).digest(), row)
            )
            place = path_to_text(str(path.resolve()))
            connection.execute(
                "INSERT INTO photos (path, size, mtime_ns, taken, vector) VALUES (?, ?, ?, 0, ?)",
                (place, status.st_size, status.st_mtime_ns, number + 1),
            )
    report: dict[str, Any] = {"files": count}
    for name in ("settling", "unchanged", "half_moved"):
        if name == "half_moved":
            for number in range(0, count // 1000, 2):
                (pictures / f"{number:04d}").rename(pictures / f"moved-{number:04d}")
        with Index.open(db) as index:
            start = time.perf_counter()
            added = index.add(pictures)
            seconds = round(time.perf_counter() - start, 2)
        report[name] = {"seconds": seconds, "encoded": added.encoded, "moved": added.moved}
    command = [sys.executable, "-m", "edgeclip", "search", "a red mug", "--db", str(db), "--all"]
    subprocess.run(command, check=True, capture_output=True)  # which keeps the opened graph and the bits
    times, before = [], sum(os.times()[2:4])
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    report["search_in_a_new_process"] = {
        "seconds": round(float(np.median(times)), 3),
        "processor_seconds": round((sum(os.times()[2:4]) - before) / len(times), 3),
    }
    return report


def indexing_rate(folder: Path, count: int = 600) -> dict[str, Any]:
    """Photos a second of `Index.add` and of the runtime's stream, on the same new files, in turns."""
    pictures = folder / "new"
    pictures.mkdir()
    for number in range(count):
        Image.fromarray(render(sample_scene("benchmark", 1, number))).resize((1600, 1200)).save(
            pictures / f"{number}.jpg", quality=92
        )
    clip = edgeclip.load("builtin:tabletop", threads=1)
    paths, rates = sorted(pictures.iterdir()), {"stream": [], "index": []}  # type: tuple[list[Path], dict[str, list[float]]]
    for turn in range(2):
        start = time.perf_counter()
        for _ in clip.stream_images(paths, workers=processors()):
            pass
        rates["stream"].append(count / (time.perf_counter() - start))
        with Index.open(folder / f"rate{turn}.db", clip) as index:
            start = time.perf_counter()
            index.add(pictures)
            rates["index"].append(count / (time.perf_counter() - start))
    medians = {name: round(float(np.median(each)), 1) for name, each in rates.items()}
    return {**medians, "share": round(medians["index"] / medians["stream"], 3)}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "scan": scan, "files": files, "indexing": indexing_rate, "abstaining": abstaining,
}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--b32", action="store_true", help="files: with a ViT-B/32 made here, not the built-in model")
    parser.add_argument("--vocabulary", type=Path, help="OpenAI's bpe_simple_vocab_16e6.txt.gz, for --b32")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment(processors()),
    }
    for part in options.only or PARTS:
        with tempfile.TemporaryDirectory() as work:
            given: dict[str, Any] = {"scan": {"count": options.vectors}}
            if part == "files":
                bundle = random_b32(Path(work), options.vocabulary) if options.b32 else "builtin:tabletop"
                given["files"] = {"count": options.files, "bundle": bundle}
            report[part] = PARTS[part](Path(work), **given.get(part, {}))
            print(part, json.dumps(report[part]), file=sys.stderr, flush=True)
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
