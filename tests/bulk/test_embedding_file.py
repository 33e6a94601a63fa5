"""Files of embeddings: read by other readers, cut at every byte, refused where they are another's."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeclip.bulk.embedding_file import EmbeddingFile
from edgeclip.bulk.file_state import hashed
from edgeclip.bulk.origin import Origin
from edgeclip.bulk.path_names import path_from_text
from edgeclip.errors import ConfigError, DataError
from edgeclip.runtime.stream import FLUSH

NAMES = ["a.jpg", 'odd "name", with\nall\r.jpg', "bad\udce9.jpg", "d.jpg", "sub/a.jpg"]
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
ROWS[1, 0] = 1e-7
SUFFIXES = ["npy", "jsonl", "csv"]


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files of these names, in the current folder."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    for name in NAMES:
        (folder / name).write_bytes(os.fsencode(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def of_here(**change: object) -> Origin:
    """Rows of files in the current folder."""
    kind = {"fingerprint": "f", "rows": "path", "dtype": "float32", "embedding_size": 3, "root": os.getcwd()}  # noqa: PTH109
    return Origin(**kind | change)


def run(path: Path, origin: Origin | None = None, group: int = 1, stop: int = 5) -> int:
    """What a command does: append what is missing, here stopping as if killed after some rows."""
    origin = origin or of_here()
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
    assert run(path, of_here(dtype=dtype)) == 5
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
    with EmbeddingFile(path, of_here()) as file:
        assert list(file.missing(["new.jpg", *NAMES, FLUSH, "a.jpg"])) == ["new.jpg", FLUSH]


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
    with EmbeddingFile(tmp_path / "out.npy", of_here()) as file:
        for n, name in enumerate(NAMES):
            assert np.load(tmp_path / "out.npy").shape == (n, 3)
            file.append(name, ROWS[n])
            np.testing.assert_array_equal(np.load(tmp_path / "out.npy", mmap_mode="r")[n], ROWS[n])


def test_of_a_batch_that_was_not_completed_nothing_is_kept(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, group=2, stop=3)
    with EmbeddingFile(path, of_here(), group=2) as file:
        assert file.rows == 2
    run(path, group=2)
    assert read(path)[0] == NAMES
    with EmbeddingFile(path, of_here(), group=2) as file:
        assert file.rows == 5  # the last batch was a short one, of a run that came to its end


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "change", [{"fingerprint": "g"}, {"dtype": "int8"}, {"rows": "text", "root": None}, {"embedding_size": 4}], ids=str
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, suffix: str, change: dict):
    path = tmp_path / f"out.{suffix}"
    run(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"whose {next(iter(change))} is"):
        EmbeddingFile(path, of_here(**change))
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_foreign_and_changed_files_are_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(b"somebody's\n" * 40)
    with pytest.raises(ConfigError, match="edgeclip did not write"):
        EmbeddingFile(path, of_here())
    path.unlink()
    run(path)
    path.write_bytes(b"somebody's\n" * 40)
    with pytest.raises(DataError, match="what embed wrote"):
        EmbeddingFile(path, of_here())
    assert path.read_bytes() == b"somebody's\n" * 40
    (tmp_path / f"out.{suffix}.edgeclip.json").write_text("{")
    with pytest.raises(DataError, match=r"edgeclip\.json"):
        EmbeddingFile(path, of_here())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_cannot_write_at_once(tmp_path: Path, suffix: str):
    with EmbeddingFile(tmp_path / f"out.{suffix}", of_here()) as file:
        file.append("a.jpg", ROWS[0])
        with pytest.raises(ConfigError, match="another process"):
            EmbeddingFile(tmp_path / f"out.{suffix}", of_here())
        file.append("b.jpg", ROWS[1])
    assert read(tmp_path / f"out.{suffix}")[0] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_rows_nothing_is_left(tmp_path: Path, suffix: str):
    path = tmp_path / f"out.{suffix}"
    with EmbeddingFile(path, of_here()):
        assert path.is_file()
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=0)
    assert list(tmp_path.iterdir()) == []


def test_texts_have_as_many_rows_as_lines(tmp_path: Path):
    for suffix in SUFFIXES:
        path, origin = tmp_path / f"out.{suffix}", of_here(rows="text", root=None)
        for texts, expected in ((["a", "b", "a"], ["a", "b", "a"]), (["a", "a", "a", "b", "c"], ["a", "c"])):
            with EmbeddingFile(path, origin) as file:
                new = list(file.missing(texts))
                assert new == expected
                for text in new:
                    file.append(text, ROWS[0])
        assert file.rows == 5


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files 0 to 4, the current folder; files of embeddings are written elsewhere."""
    folder = tmp_path / "here" / "pictures"
    folder.mkdir(parents=True)
    for n in range(5):
        (folder / str(n)).write_text(f"content {n}")
    monkeypatch.chdir(folder)
    return folder


def embed(path: Path, names: list[str], *, broken: str = "", **options: object) -> tuple[EmbeddingFile, list[str]]:
    """Append what is missing: as a file's embedding its length and its last byte; and say what was."""
    root = os.path.realpath(options.pop("root", "."))
    with EmbeddingFile(path, of_here(embedding_size=2, root=root), **options) as file:
        new = []
        for name in file.missing(names):
            if name != broken:
                data = Path(name).read_bytes()
                file.append(name, np.float32([len(data), data[-1]]))
            new.append(name)
    return file, new


def rows_of(path: Path) -> dict[str, tuple[int, str]]:
    """Name, length and last byte of each row."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = [(name, [float(a), float(b)]) for name, a, b in list(csv.reader(file))[1:]]
        names = [json.loads(line)["path"] for line in path.with_name("out.csv.rows.jsonl").read_text().splitlines()]
        assert [name for name, _ in rows] == names
    else:
        names, embeds = read(path)
        rows = list(zip(names, embeds.tolist(), strict=True))
    assert len(dict(rows)) == len(rows)
    return {name: (int(length), chr(int(last))) for name, (length, last) in rows}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_has_changed_gets_a_new_row_in_place_of_the_old_one(tmp_path: Path, folder: Path, suffix: str):
    out, names = tmp_path / f"out.{suffix}", list("01234")
    embed(out, names)
    (folder / "1").write_text("another length")
    (folder / "2").write_text("content X")  # of the same length
    (folder / "3").unlink()
    file, new = embed(out, names[:3])  # the others are not asked for
    assert new == ["1", "2"]
    assert (file.rows, file.added, file.files.changed, file.files.gone) == (5, 2, 2, ["3"])
    expected = {"0": (9, "0"), "3": (9, "3"), "4": (9, "4"), "1": (14, "h"), "2": (9, "X")}
    assert list(rows_of(out).items()) == list(expected.items())
    assert embed(out, names[:3])[1] == []

    file, _ = embed(out, ["0", "2", "1"], prune=True)
    assert (file.rows, file.files.gone) == (4, ["3"])
    assert rows_of(out) == {name: row for name, row in expected.items() if name != "3"}
    assert {path.suffix for path in tmp_path.iterdir()} <= {f".{suffix}", ".json", ".jsonl", ""}
    assert not list(tmp_path.glob(".*"))


def test_content_is_read_where_the_date_alone_differs_and_then_known(tmp_path: Path, folder: Path, monkeypatch):
    out, names = tmp_path / "out.npy", list("01")
    embed(out, names)
    read = []
    monkeypatch.setattr("edgeclip.bulk.known_rows.hashed", lambda path, state: read.append(path) or hashed(path, state))
    assert embed(out, names)[1] == []
    assert read == []
    for date, new, hashes in ((1, ["0"], ["0"]), (2, [], ["0"]), (2, [], [])):
        os.utime(folder / "0", (date, date))
        read.clear()
        assert (embed(out, names)[1], read) == (new, hashes)
    (folder / "0").write_text("content X")
    assert embed(out, names)[1] == ["0"]
    assert rows_of(out) == {"1": (9, "1"), "0": (9, "X")}


def test_a_changed_file_that_is_broken_keeps_no_row(tmp_path: Path, folder: Path):
    out = tmp_path / "out.csv"
    embed(out, ["0", "1"])
    (folder / "1").write_text("")
    embed(out, ["0", "1"], broken="1")
    assert list(rows_of(out)) == ["0"]
    (folder / "0").unlink()
    embed(out, ["1"], broken="1", prune=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]  # no rows, no files


def test_however_a_file_is_called_it_has_one_row(tmp_path: Path, folder: Path):
    out = tmp_path / "out.jsonl"
    (tmp_path / "link").symlink_to(folder)
    (folder / "sub").mkdir()
    (folder / "also 0").symlink_to("0")
    embed(out, ["0", "1"])
    same = ["./0", str(folder / "1"), str(tmp_path / "link" / "0"), f"{tmp_path}/here/../link//1", "sub/../0"]
    file, new = embed(out, same, root=tmp_path)
    assert new == []
    assert file.files.repeated == 3
    assert embed(out, ["also 0", "2", str(folder / "2")])[1] == ["also 0", "2"]
    assert list(rows_of(out)) == ["0", "1", "also 0", "2"]
    (tmp_path / "other").write_text("other")
    assert embed(out, [str(tmp_path / "other")], root=tmp_path)[1] == [str(tmp_path / "other")]
    assert "../../other" in rows_of(out)


def test_a_root_that_has_moved(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out.npy"
    embed(out, ["0", "1"])
    folder.rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    (tmp_path / "there" / "1").write_text("changed")
    file, new = embed(out, ["0", "1", "2"])
    assert (new, file.files.gone) == (["1", "2"], [])
    assert list(rows_of(out)) == ["0", "1", "2"]
    assert json.loads((tmp_path / "out.npy.edgeclip.json").read_text())["root"] == str(tmp_path / "there")
    shutil.copytree(tmp_path / "there", tmp_path / "copy")  # other files, for those of the root are there still
    assert len(embed(out, [str(tmp_path / "copy" / "0")], root=tmp_path / "copy")[1]) == 1
    assert list(rows_of(out)) == ["0", "1", "2", "../copy/0"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_killed_anywhere_outdated_rows_go_and_no_other(tmp_path: Path, folder: Path, suffix: str):
    """At each replacement, removal and flush to disk a run is ended at once; the next one comes to the same files."""
    out, names = tmp_path / "out" / f"out.{suffix}", list("01234")
    embed(out, names)
    for name in ("1", "3"):
        (folder / name).write_text(f"changed {name}!")
    before = contents(out.parent)
    embed(out, names)
    after = contents(out.parent)
    assert after != before
    for calls in range(1, 40):
        shutil.rmtree(out.parent)
        out.parent.mkdir()
        for name, data in before.items():
            (out.parent / name).write_bytes(data)
        killed = killed_after(calls, lambda: embed(out, names))
        assert set(rows_of_any(out)) == set(names)
        embed(out, names)
        assert contents(out.parent) == after, calls
        if not killed:
            break
    assert not killed
    assert calls > 8


def killed_after(calls: int, run: Callable[[], object]) -> bool:
    """Run something in a process that ends at once at the given call that removes, replaces or flushes a file."""
    if not (process := os.fork()):
        left = [calls]

        def ends(function: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                left[0] -= 1
                return function(*arguments, **options) if left[0] else os._exit(1)

            return call

        os.fsync, Path.replace, Path.unlink = map(ends, (os.fsync, Path.replace, Path.unlink))
        try:
            run()
            os._exit(0)
        finally:
            os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, 1)
    return code == 1


def rows_of_any(path: Path) -> list[str]:
    """The names of rows, also in the middle of a run, where a file may have two."""
    log = path if path.suffix == ".jsonl" else path.with_name(f"{path.name}.rows.jsonl")
    return [json.loads(line)["path"] for line in log.read_text().splitlines()]


def test_files_of_an_earlier_version_are_refused_with_advice(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    run(path)
    note = tmp_path / "out.jsonl.edgeclip.json"
    old = {key: value for key, value in json.loads(note.read_text()).items() if key not in ("root", "replacing")}
    note.write_text(json.dumps(old))
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"an earlier version.*give another `out`"):
        run(path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_rows_whose_names_are_lost_are_not_thrown_away(tmp_path: Path, suffix: str):
    path = tmp_path / f"out.{suffix}"
    run(path)
    (tmp_path / f"out.{suffix}.rows.jsonl").unlink()
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"without out\..*rows\.jsonl"):
        run(path)
    assert contents(tmp_path) == before


def test_other_suffixes(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"\.npy or \.jsonl or \.csv"):
        EmbeddingFile(tmp_path / "out.parquet", of_here())
    assert list(tmp_path.iterdir()) == []
