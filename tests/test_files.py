from pathlib import Path

import pytest

from edgeclip.errors import ConfigError
from edgeclip.files import folder_written_atomically, output_folder, own_output_folder, write_atomically


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
