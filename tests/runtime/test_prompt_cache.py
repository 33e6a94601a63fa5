"""The cache on disk: found again, bounded, never trusted when damaged, shared by processes."""

import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import edgeclip
from edgeclip.runtime import prompt_cache
from edgeclip.runtime.prompt_cache import PromptCache

A, B = np.arange(4, dtype=np.float32), np.full(4, 0.5, np.float32)


def the_file(folder: Path) -> Path:
    return folder / "prompts.sqlite"


def test_what_was_put_in_is_found_by_the_next_process(tmp_path: Path):
    cache = PromptCache(tmp_path, "f1", 4)
    assert cache.get(["a"]) == {}
    cache.put({"a": A, "\ud800": B})
    cache.put({"b": B})
    again = PromptCache(tmp_path, "f1", 4).get(["b", "a", "c", "\ud800"])
    assert list(again) == ["b", "a", "\ud800"]
    np.testing.assert_array_equal(again["a"], A)
    assert PromptCache(tmp_path, "f2", 4).get(["a"]) == {}


@pytest.mark.parametrize("damage", ["a flipped bit", "short", "empty", "of another bundle", "no database"])
def test_what_is_damaged_is_not_trusted_and_written_anew(tmp_path: Path, damage: str):
    PromptCache(tmp_path, "f1", 4).put({"a": A})
    path = the_file(tmp_path)
    data = path.read_bytes()
    if damage == "a flipped bit":
        at = data.index(A.tobytes()) + 5
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif damage == "of another bundle":
        with sqlite3.connect(path) as connection:
            ours = PromptCache(tmp_path, "f2", 4)._bundle
            connection.execute("UPDATE prompts SET bundle = ?", (ours,))
        connection.close()
    else:
        path.write_bytes({"short": data[: len(data) // 2], "empty": b"", "no database": b"rubbish" * 1000}[damage])
    cache = PromptCache(tmp_path, "f2" if damage == "of another bundle" else "f1", 4)
    assert cache.get(["a"]) == {}
    cache.put({"b": B})
    assert list(PromptCache(tmp_path, "f2" if damage == "of another bundle" else "f1", 4).get(["a", "b"])) == ["b"]


def test_the_newest_texts_and_bundles_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prompt_cache, "MAX_TEXTS", 3)
    monkeypatch.setattr(prompt_cache, "MAX_BUNDLES", 2)
    cache = PromptCache(tmp_path, "f1", 4)
    for text in "abcde":
        cache.put({text: A})
    assert list(PromptCache(tmp_path, "f1", 4).get(list("abcde"))) == ["c", "d", "e"]
    PromptCache(tmp_path, "f2", 4).put({"a": A})
    PromptCache(tmp_path, "f3", 4).put({"a": A})
    assert [bool(PromptCache(tmp_path, name, 4).get(["a", "e"])) for name in ("f1", "f2", "f3")] == [False, True, True]


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    cache = PromptCache(tmp_path / "file", "f1", 4)
    cache.put({"a": A})
    assert list(cache.get(["a"])) == ["a"]


def _write(folder: Path, name: str) -> None:
    for n in range(20):
        PromptCache(folder, "f1", 4).put({f"{name}{n}": A})


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prompt_cache, "LOCK_SECONDS", 600)  # however busy the machine is
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(tmp_path, name)) for name in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = PromptCache(tmp_path, "f1", 4).get([f"{name}{n}" for name in "xyz" for n in range(20)])
    assert len(found) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.sqlite"]


def test_a_second_runtime_classifies_without_the_text_graph(bundles: dict[str, Path], tmp_path: Path):
    image, labels = np.full((40, 40, 3), 90, np.uint8), ["ball", "box", "ball"]
    first = edgeclip.load(bundles["int8"], threads=1, cache=tmp_path)
    expected = first.classify([image], labels)
    assert first.open_graphs == ["image", "text"]
    second = edgeclip.load(bundles["int8"], threads=1, cache=tmp_path)
    assert second.classify([image], labels) == expected
    assert second.open_graphs == ["image"]
    np.testing.assert_array_equal(
        second.encode_text(["a photo of a box"], cached=True), first.encode_text(["a photo of a box"])
    )
    assert second.encode_text([], cached=True).shape == (0, 16)
    other = edgeclip.load(bundles["fp32"], threads=1, cache=tmp_path)
    other.classify([image], labels)
    assert "text" in other.open_graphs


def test_what_is_damaged_and_cannot_be_replaced_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    the_file(tmp_path).write_bytes(b"rubbish" * 1000)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    cache = PromptCache(tmp_path, "f1", 4)
    cache.put({"a": A})
    np.testing.assert_array_equal(cache.get(["a"])["a"], A)
    assert the_file(tmp_path).read_bytes() == b"rubbish" * 1000
