"""A function in a process of its own: what it gives, and why it gave nothing."""

import os
from pathlib import Path

import pytest

from edgeclip.errors import ConfigError
from edgeclip.measure.child import ChildError
from edgeclip.tune.apart import called_apart
from edgeclip.tune.trials import TrialError

pytestmark = pytest.mark.slow


def working(number: int) -> dict[str, int]:
    print("a library's chatter")
    return {"number": number, "process": os.getpid()}


def mistaken() -> dict[str, int]:
    raise ConfigError("a tower of 9 GB", expected="at most 2", fix="use a smaller one")


def greedy() -> dict[str, int]:
    return {"bytes": len(bytearray(2_000_000_000))}


def crashing() -> dict[str, int]:
    os.abort()


def sleeping() -> dict[str, int]:
    while True:
        pass


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module is one that the process can import."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=":")


@pytest.mark.usefixtures("there")
def test_what_comes_back(tmp_path: Path):
    found = called_apart(working, 7, place=tmp_path, cap_mb=None)
    assert found["number"] == 7
    assert found["process"] != os.getpid()
    with pytest.raises(TrialError, match="a tower of 9 GB; expected at most 2"):
        called_apart(mistaken, place=tmp_path, cap_mb=None)
    with pytest.raises(ChildError, match="needed more than 1500 MB"):
        called_apart(greedy, place=tmp_path, cap_mb=1500)
    with pytest.raises(ChildError, match="the process ended with -6"):
        called_apart(crashing, place=tmp_path, cap_mb=1500)
    with pytest.raises(ChildError, match=r"took more than 0\.5 s"):
        called_apart(sleeping, place=tmp_path, cap_mb=None, timeout_s=0.5)
    assert list(tmp_path.iterdir()) == []
