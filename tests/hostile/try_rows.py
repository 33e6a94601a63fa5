"""Give mutated data sets to their readers: each is read, with every row kept or counted, or ends in one line."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import datasets
import pyarrow.parquet

from edgeclip.data.load_data import load_data
from edgeclip.errors import EdgeclipError
from tests.hostile.quiet import quiet

TABLES = (
    b'image,caption\n0.jpg,"a ""b"" c, d"\n1.jpg,a cat\n',
    b"image_name| comment_number| comment\n1.jpg| 0| a\n1.jpg| 1| b\n",
    "image;caption\n0.jpg;été\n".encode("utf-16"),
    b"1.jpg#0\ta dog\n1.jpg#1\tb\n",
)
ANNOTATIONS = (
    {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "caption": "x"}]},
    {"images": [{"filename": "a", "split": "test", "filepath": "p", "sentences": [{"raw": "x"}]}]},
)


def run(number: int, seed: int) -> dict[str, object]:
    """Try so many files; "wrong" are those that raised anything else, or lost a row uncounted."""
    rng = random.Random(seed)
    summary: dict[str, object] = {"read": 0, "errors": 0, "wrong": []}
    intact = originals()
    with quiet(), TemporaryDirectory() as folder, patch("datasets.config.HF_DATASETS_CACHE", Path(folder, "cache")):
        for n in range(number):
            suffix = rng.choice([*intact, ".csv", ".json", ".tar"])
            path = Path(folder, f"{n}{suffix}")
            data = mutated(rng.choice(intact[suffix]), rng)
            path.write_bytes(data)
            try:
                captions = load_data(str(path), samples=0, seed=0)
                kept = sum(len(captions.records[index].captions) for index in range(len(captions)))
                if captions.rows is None or kept < captions.rows.kept:
                    summary["wrong"].append(f"{path.name}: {captions.rows}, {kept} captions")
                summary["read"] += 1
            except EdgeclipError as error:
                summary["errors"] += 1
                if "\n" in str(error):
                    summary["wrong"].append(f"{path.name}: {error}")
            except Exception as error:  # noqa: BLE001 - what is looked for
                summary["wrong"].append(f"{path.name}: {type(error).__name__} {error}")
            path.unlink()
    return summary


def originals() -> dict[str, list[bytes]]:
    """Intact files of each kind."""
    parquet = io.BytesIO()
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    cells = {"image": [{"bytes": b"a"}, {"path": "b"}], "text": ["x", "y"]}
    pyarrow.parquet.write_table(pyarrow.table(cells, schema=features.arrow_schema), parquet)
    return {
        ".csv": list(TABLES),
        ".json": [json.dumps(content).encode() for content in ANNOTATIONS],
        ".tar": [shard(tarfile.PAX_FORMAT), shard(tarfile.GNU_FORMAT)],
        ".parquet": [parquet.getvalue()],
    }


def shard(format_: int) -> bytes:
    """A shard with long names, and in the newer format with a member that calls itself sparse."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for name in ("a.jpg", "é" * 120 + ".jpg", "a.txt", "é" * 120 + ".json", "b.jpg", "b.txt"):
            data = b'{"caption": "x"}' if name.endswith("json") else b"x" * 600
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if format_ == tarfile.PAX_FORMAT:
                sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "77"}
                member.pax_headers = sparse if name == "b.jpg" else {"mtime": "1.5"}
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, put in, cut out or said twice; what has a meaning more often than chance would have it."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        start, end = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
        kind = rng.randrange(5)
        if kind < 2:
            changed[start : start + 1] = rng.choice([b"\0", b"\xff", b'"', b"\n", b",", b"9", rng.randbytes(1)])
        elif kind == 2:
            changed[start:start] = rng.choice([b'"', b"\n", b"\t", b"\xff\xfe", b"[" * 3000, rng.randbytes(8)])
        elif kind == 3:
            del changed[start : start + rng.randint(1, 600)]
        else:
            changed[start:start] = changed[start:end]
    return bytes(changed)
