"""What the command line shows of the library's progress and words."""

import io
import json
import logging

import pytest
from rich.progress import Task

from edgeclip.cli.console import rate_column, shown
from edgeclip.progress import task

LOGGER = logging.getLogger("edgeclip.somewhere")


def test_elsewhere_than_on_a_terminal_a_task_is_one_line(capsys: pytest.CaptureFixture[str]):
    with shown(quiet=False, verbose=False, log_json=False):
        with task("Embedding", 3, unit="images") as advance:
            advance()
            advance(2)
        with task("Decoding", 3) as advance:
            advance(3)
        LOGGER.warning("left out: a.jpg")
        LOGGER.debug("a detail")
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith("Embedding: ")
    assert ", 3 images, " in first
    assert first.endswith(" images/s")
    assert second.startswith("Decoding: ")
    assert second.endswith(" s")
    assert third == "left out: a.jpg"


def test_quiet_and_verbose(capsys: pytest.CaptureFixture[str]):
    for quiet, verbose, expected in ((True, False, ["an error"]), (False, True, ["a detail", "a warning", "an error"])):
        with shown(quiet=quiet, verbose=verbose, log_json=False):
            LOGGER.debug("a detail")
            LOGGER.warning("a warning")
            LOGGER.error("an error")
        assert capsys.readouterr().err.splitlines() == expected


def test_json_lines(capsys: pytest.CaptureFixture[str]):
    with shown(quiet=False, verbose=False, log_json=True):
        with task("Embedding", 3, unit="images") as advance:
            advance(3)
        LOGGER.warning("left out: %s", "a.jpg")
    done, warning = map(json.loads, capsys.readouterr().err.splitlines())
    assert (done["task"], done["done"], done["level"]) == ("Embedding", 3, "info")
    assert (warning["message"], warning["level"]) == ("left out: a.jpg", "warning")


def test_on_a_terminal_it_shows_the_rate_even_where_the_total_is_unknown(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with (
        shown(quiet=False, verbose=False, log_json=False),
        task("Embedding", None, unit="images") as advance,
    ):
        advance(5)
    assert "5/?" in screen.getvalue()


def test_the_rate_by_hand():
    times = iter([0.0, 0.0, 2.0, 2.0])
    task = Task(0, "x", 10, 0, _get_time=lambda: next(times, 2.0))
    assert str(rate_column("images").render(task)) == ""
    task.start_time = 0.0
    task.finished_speed = 2.5
    assert str(rate_column("images").render(task)) == "2.5 images/s"
