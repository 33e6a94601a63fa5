import io

import pytest
from rich.progress import Task

from edgeclip.progress import _Rate, stage


def test_elsewhere_than_on_a_terminal_a_stage_is_one_line(capsys: pytest.CaptureFixture[str]):
    with stage("Embedding", 3, unit="images") as advance:
        advance()
        advance(2)
    with stage("Decoding", 3) as advance:
        advance(3)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Embedding: ")
    assert ", 3 images, " in first
    assert first.endswith(" images/s")
    assert second.startswith("Decoding: ")
    assert second.endswith(" s")


def test_on_a_terminal_it_shows_the_rate_even_where_the_total_is_unknown(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with stage("Embedding", None, unit="images") as advance:
        advance(5)
    assert "5/?" in screen.getvalue()


def test_the_rate_by_hand():
    times = iter([0.0, 0.0, 2.0, 2.0])
    task = Task(0, "x", 10, 0, _get_time=lambda: next(times, 2.0))
    assert str(_Rate("images").render(task)) == ""
    task.start_time = 0.0
    task.finished_speed = 2.5
    assert str(_Rate("images").render(task)) == "2.5 images/s"
