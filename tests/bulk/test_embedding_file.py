"""Files of embeddings: read by other readers, cut at every byte, refused where they are another's."""

import csv
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeclip.bulk.embedding_file import EmbeddingFile, Origin
from edgeclip.bulk.path_names import path_from_text
from edgeclip.errors import ConfigError, DataError
from edgeclip.runtime.stream import FLUSH

NAMES = ["a.jpg", 'odd "name", with\nall\r.jpg', "bad\udce9.jpg", "d.jpg", "a.jpg"]
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
ROWS[1, 0] = 1e-7
ORIGIN = Origin(fingerprint="f", rows="path", dtype="float32", embedding_size=3)
SUFFIXES = ["npy", "jsonl", "csv"]


def run(path: Path, origin: Origin = ORIGIN, group: int = 1, stop: int = 5) -> int:
    """What a command does: append what is missing, here stopping as if killed after some rows."""
    with EmbeddingFile(path, origin, group=group) as file:
        new = 0
        for name in file.missing([FLUSH, *NAMES]):
            if name is not FLUSH:
                if file.rows == stop:
                    raise KeyboardInterrupt
                file.append(name, ROWS[file.rows].astype(origin.dtype))
                new += 1
    return new


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """By other readers than ours."""
    if path.suffix == ".npy":
        lines = path.with_name(f"{path.name}.rows.jsonl").read_text().splitlines()
        return [path_from_text(json.loads(line)["path"]) for line in lines], np.load(path)
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [path_from_text(row["path"]) for row in rows], np.array([row["embedding"] for row in rows])
    with path.open(newline="", encoding="utf-8") as file:
        header, *records = csv.reader(file)
    assert header == ["path", "e0", "e1", "e2"]
    return [path_from_text(name) for name, *_ in records], np.array([numbers for _, *numbers in records], np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_reader_gets_what_was_written(tmp_path: Path, suffix: str, dtype: str):
    path = tmp_path / "new" / f"out.{suffix}"
    assert run(path, msgspec.structs.replace(ORIGIN, dtype=dtype)) == 5
    names, rows = read(path)
    assert names == NAMES
    np.testing.assert_array_equal(rows.astype(dtype), ROWS.astype(dtype))
    if suffix == "npy":
        assert rows.dtype == dtype


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_run_adds_nothing_and_a_longer_list_only_its_end(tmp_path: Path, suffix: str):
    path = tmp_path / f"out.{suffix}"
    run(path)
    before = path.read_bytes()
    assert run(path) == 0
    assert path.read_bytes() == before
    with EmbeddingFile(path, ORIGIN) as file:
        assert list(file.missing(["new.jpg", *NAMES, FLUSH, "a.jpg"])) == ["new.jpg", FLUSH, "a.jpg"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.slow
def test_cut_at_any_byte_it_goes_on_to_the_same_file(tmp_path: Path, suffix: str):
    whole = tmp_path / f"out.{suffix}"
    run(whole)
    expected = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in (name for name in expected if not name.endswith("edgeclip.json")):
        for size in range(len(expected[name])):
            folder = tmp_path / "cut"
            folder.mkdir()
            for other, data in expected.items():
                (folder / other).write_bytes(data[:size] if other == name else data)
            note = json.loads(expected[f"{whole.name}.edgeclip.json"]) | {"finished": 0}
            (folder / f"{whole.name}.edgeclip.json").write_text(json.dumps(note))
            run(folder / whole.name)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected, (name, size)
            shutil.rmtree(folder)


def test_a_npy_file_is_whole_at_every_row(tmp_path: Path):
    with EmbeddingFile(tmp_path / "out.npy", ORIGIN) as file:
        for n, name in enumerate(NAMES):
            assert np.load(tmp_path / "out.npy").shape == (n, 3)
            file.append(name, ROWS[n])
            np.testing.assert_array_equal(np.load(tmp_path / "out.npy", mmap_mode="r")[n], ROWS[n])


def test_of_a_batch_that_was_not_completed_nothing_is_kept(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, group=2, stop=3)
    with EmbeddingFile(path, ORIGIN, group=2) as file:
        assert file.rows == 2
    run(path, group=2)
    assert read(path)[0] == NAMES
    with EmbeddingFile(path, ORIGIN, group=2) as file:
        assert file.rows == 5  # the last batch was a short one, of a run that came to its end


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "change", [{"fingerprint": "g"}, {"dtype": "int8"}, {"rows": "text"}, {"embedding_size": 4}], ids=str
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, suffix: str, change: dict):
    path = tmp_path / f"out.{suffix}"
    run(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"whose {next(iter(change))} is"):
        EmbeddingFile(path, msgspec.structs.replace(ORIGIN, **change))
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_foreign_and_changed_files_are_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(b"somebody's\n" * 40)
    with pytest.raises(ConfigError, match="edgeclip did not write"):
        EmbeddingFile(path, ORIGIN)
    path.unlink()
    run(path)
    path.write_bytes(b"somebody's\n" * 40)
    with pytest.raises(DataError, match="what embed wrote"):
        EmbeddingFile(path, ORIGIN)
    assert path.read_bytes() == b"somebody's\n" * 40
    (tmp_path / f"out.{suffix}.edgeclip.json").write_text("{")
    with pytest.raises(DataError, match=r"edgeclip\.json"):
        EmbeddingFile(path, ORIGIN)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_cannot_write_at_once(tmp_path: Path, suffix: str):
    with EmbeddingFile(tmp_path / f"out.{suffix}", ORIGIN) as file:
        file.append("a.jpg", ROWS[0])
        with pytest.raises(ConfigError, match="another process"):
            EmbeddingFile(tmp_path / f"out.{suffix}", ORIGIN)
        file.append("b.jpg", ROWS[1])
    assert read(tmp_path / f"out.{suffix}")[0] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_rows_nothing_is_left(tmp_path: Path, suffix: str):
    path = tmp_path / f"out.{suffix}"
    with EmbeddingFile(path, ORIGIN):
        assert path.is_file()
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=0)
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"\.npy or \.jsonl or \.csv"):
        EmbeddingFile(tmp_path / "out.parquet", ORIGIN)
    assert list(tmp_path.iterdir()) == []
