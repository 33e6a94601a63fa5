"""Trials are recorded as they end, known again, forgotten when what they depend on changes, and touch no other file."""

from pathlib import Path

import pytest

from edgeclip.errors import ConfigError
from edgeclip.measure.child import ChildError
from edgeclip.tune.trials import TRIALS, Trials, check_own


def fail() -> dict[str, object]:
    raise ChildError("took more than 1 s")


def test_what_was_done_is_not_done_again(tmp_path: Path):
    trials = Trials(tmp_path / "t", "model")
    assert trials.run("one", lambda: {"ms": 1.5}).found == {"ms": 1.5}
    assert trials.run("two", fail).failed == "took more than 1 s"
    again = Trials(tmp_path / "t", "model")
    assert again.run("one", lambda: pytest.fail("again")).found == {"ms": 1.5}
    assert [trial.name for trial in again.failures] == ["two"]


@pytest.mark.parametrize("torn", [b"", b"{", b'{"name": "three", "found": {}}'])
def test_a_line_without_its_end_is_no_trial(tmp_path: Path, torn: bytes):
    Trials(tmp_path, "model").run("one", dict)
    with (tmp_path / TRIALS).open("ab") as file:
        file.write(torn)
    again = Trials(tmp_path, "model")
    assert list(again.done) == ["depends on", "one"]
    again.run("three", lambda: {"ms": 2})
    assert Trials(tmp_path, "model").done["three"].found == {"ms": 2}


def test_trials_of_another_model_are_forgotten_with_their_files(tmp_path: Path):
    Trials(tmp_path, "model").run("one", dict)
    (tmp_path / "int8").mkdir()
    assert list(Trials(tmp_path, "other").done) == ["depends on"]
    assert [path.name for path in tmp_path.iterdir()] == [TRIALS]


def test_an_error_of_this_process_is_raised_and_not_recorded(tmp_path: Path):
    trials = Trials(tmp_path, "model")
    with pytest.raises(ZeroDivisionError):
        trials.run("one", lambda: {"ms": 1 / 0})
    assert "one" not in Trials(tmp_path, "model").done


def test_what_is_not_its_own_stays(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"a picture")
    with pytest.raises(ConfigError, match=r"holiday\.jpg"):
        Trials(tmp_path, "model")
    with pytest.raises(ConfigError, match=r"with holiday\.jpg"):
        check_own(tmp_path / "holiday.jpg")
    check_own(tmp_path / "holiday.jpg" / "trials")  # the folder can't be made, which is told then
    assert (tmp_path / "holiday.jpg").read_bytes() == b"a picture"
