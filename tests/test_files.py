import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeclip import files
from edgeclip.errors import ConfigError
from edgeclip.files import (
    folder_written_atomically,
    locked,
    output_folder,
    own_output_folder,
    present,
    remove_leftovers,
    write_atomically,
)


def test_a_file_replaces_the_old_one_and_leaves_nothing_beside(tmp_path: Path):
    write_atomically(tmp_path / "a.json", b"1")
    write_atomically(tmp_path / "a.json", b"2")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.json", b"2")]


def _interrupted(folder: Path) -> None:
    with folder_written_atomically(folder) as temporary:
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt


def test_an_interrupted_folder_leaves_the_old_one(tmp_path: Path):
    with folder_written_atomically(tmp_path / "model") as temporary:
        (temporary / "whole").write_text("x")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path / "model")
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "whole"]


def test_an_impossible_output_folder_is_a_user_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make"):
        output_folder(tmp_path / "file" / "sub")


def test_a_folder_is_one_runs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with own_output_folder(tmp_path / "out"):
        with pytest.raises(ConfigError, match="out, to which another run writes"), own_output_folder(tmp_path / "out"):
            pytest.fail("it is taken")
        monkeypatch.setenv("RANK", "1")
        with own_output_folder(tmp_path / "out"):
            (tmp_path / "out" / "of the same run").touch()
        monkeypatch.delenv("RANK")
    with own_output_folder(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["of the same run"]


def a_folder(folder: Path, content: str) -> None:
    with folder_written_atomically(folder) as temporary:
        (temporary / "a").write_text(content)


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_there_at_every_instant(tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch):
    """A reader that looks after each step of a replacement finds the one or the other, whole."""
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    target, found = tmp_path / "model", []
    a_folder(target, "one")
    for name in ("replace", "rmdir", "unlink"):
        step = getattr(Path, name)

        def watched(*arguments, step=step):
            outcome = step(*arguments)
            found.append((present(target) / "a").read_text())
            return outcome

        monkeypatch.setattr(Path, name, watched)
    a_folder(target, "two")
    monkeypatch.undo()
    assert (target / "a").read_text() == "two"
    assert set(found) <= {"one", "two"}
    assert ("one" in found) == (not exchanges)  # in one step there is no instant between
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeclip import files
files._exchange = lambda one, other: False
replace = Path.replace
def kill_after(self, target):
    replace(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = kill_after
with files.folder_written_atomically(Path(sys.argv[1])) as temporary:
    (temporary / "a").write_text("two")
"""


def test_a_kill_between_taking_away_and_replacing_loses_nothing(tmp_path: Path):
    target = tmp_path / "model"
    a_folder(target, "one")
    assert subprocess.run([sys.executable, "-c", KILLED, target], check=False).returncode == -9
    assert not target.exists()
    assert (present(target) / "a").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(KeyboardInterrupt):
        _interrupted(target)  # the next run puts it back, whatever becomes of that run, and removes what was left
    assert (target / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_leftovers_of_killed_processes_go(tmp_path: Path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    machine, gone, running = files._machine(), int(ended.stdout), os.getpid()
    names = {
        f".a.{machine}-{gone}-1.edgeclip-part": False,
        f".a.{machine}-{running}-1.edgeclip-part": True,
        f".a.00000000-{gone}-1.edgeclip-part": True,  # of another machine
        ".notes.part": True,
        f".x.{gone}.edgeclip-part": True,  # not a name of ours
    }
    for name in names:
        (tmp_path / name).write_text("x")
    folder = tmp_path / f".b.{machine}-{gone}-7.edgeclip-part"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "a").write_text("x")
    remove_leftovers(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names
    assert not folder.exists()
    old = tmp_path / f".a.00000000-{gone}-1.edgeclip-part"
    os.utime(old, (time.time() - 2 * files.FORGOTTEN_S,) * 2)
    remove_leftovers(tmp_path)
    assert not old.exists()


LENT = """
import os, signal, sys
from pathlib import Path
from edgeclip.files import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "teacher").mkdir()
    if sys.argv[2:]:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_needed_for_a_while_goes_however_a_run_ends(tmp_path: Path):
    assert subprocess.run([sys.executable, "-c", LENT, tmp_path], check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert subprocess.run([sys.executable, "-c", LENT, tmp_path, "killed"], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    output_folder(tmp_path)  # as the next run begins
    assert list(tmp_path.iterdir()) == []


def test_a_lock_leaves_no_folder_that_it_made(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "a" / "b" / "out", "taken", fix="wait"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "out", "taken", fix="wait"):
        (tmp_path / "a" / "out").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_long_names_leave_room_for_a_part_s(tmp_path: Path):
    path = tmp_path / ("a" * 240)
    write_atomically(path, b"1")
    a_folder(tmp_path / ("b" * 240), "one")
    assert path.read_bytes() == b"1"
