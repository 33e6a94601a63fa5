"""The bank on disk: found again, bounded, never trusted when damaged, shared by processes."""

import multiprocessing
import os
import stat
from pathlib import Path

import numpy as np
import pytest

import edgeclip
from edgeclip.runtime import prompt_bank
from edgeclip.runtime.prompt_bank import PromptBank

A, B = np.arange(4, dtype=np.float32), np.full(4, 0.5, np.float32)


def the_file(folder: Path) -> Path:
    (path,) = (folder / "prompts").iterdir()
    return path


def test_what_was_put_in_is_found_by_the_next_process(tmp_path: Path):
    bank = PromptBank(tmp_path, "f1", 4)
    assert bank.get(["a"]) == {}
    bank.put({"a": A, "\ud800": B})
    bank.put({"b": B})
    again = PromptBank(tmp_path, "f1", 4).get(["b", "a", "c", "\ud800"])
    assert list(again) == ["b", "a", "\ud800"]
    np.testing.assert_array_equal(again["a"], A)
    assert PromptBank(tmp_path, "f2", 4).get(["a"]) == {}


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "of another bundle"])
def test_a_damaged_file_is_not_trusted_and_written_anew(tmp_path: Path, damage: str):
    PromptBank(tmp_path, "f1", 4).put({"a": A})
    path = the_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    if damage == "of another bundle":
        PromptBank(tmp_path / "other", "f2", 4).put({"a": A})
        data = bytearray(the_file(tmp_path / "other").read_bytes())
    path.write_bytes({"short": data[:-3], "empty": b""}.get(damage, bytes(data)))
    bank = PromptBank(tmp_path, "f1", 4)
    assert bank.get(["a"]) == {}
    bank.put({"b": B})
    assert list(PromptBank(tmp_path, "f1", 4).get(["a", "b"])) == ["b"]


def test_the_newest_texts_and_bundles_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prompt_bank, "MAX_TEXTS", 3)
    monkeypatch.setattr(prompt_bank, "MAX_BUNDLES", 2)
    bank = PromptBank(tmp_path, "f1", 4)
    for text in "abcde":
        bank.put({text: A})
    assert list(PromptBank(tmp_path, "f1", 4).get(list("abcde"))) == ["c", "d", "e"]
    for age, path in enumerate([the_file(tmp_path)]):
        os.utime(path, (age, age))
    PromptBank(tmp_path, "f2", 4).put({"a": A})
    PromptBank(tmp_path, "f3", 4).put({"a": A})
    assert [bool(PromptBank(tmp_path, name, 4).get(["a", "e"])) for name in ("f1", "f2", "f3")] == [False, True, True]


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    bank = PromptBank(tmp_path / "file", "f1", 4)
    bank.put({"a": A})
    assert list(bank.get(["a"])) == ["a"]


def _write(folder: Path, name: str) -> None:
    for n in range(20):
        PromptBank(folder, "f1", 4).put({f"{name}{n}": A})


def test_processes_that_write_at_once_leave_a_whole_file(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(tmp_path, name)) for name in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = PromptBank(tmp_path, "f1", 4).get([f"{name}{n}" for name in "xyz" for n in range(20)])
    assert set(found) & {"x19", "y19", "z19"}  # the last to write wrote this at least
    assert [path.suffix for path in (tmp_path / "prompts").iterdir()] == [".bin"]
    assert stat.S_IMODE(the_file(tmp_path).stat().st_mode) & stat.S_IRUSR


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
