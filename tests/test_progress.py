"""Progress goes to the observer that is installed, and to nobody without one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeclip.progress import Advance, observe, task


class Recorder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    @contextmanager
    def task(self, description: str, total: int | None, unit: str | None) -> Iterator[Advance]:
        self.told.append((description, total, unit))
        yield lambda n=1, note=None: self.told.append((n, note))
        self.told.append("end")


def test_the_observer_is_told_until_the_block_ends():
    recorder = Recorder()
    with observe(recorder), task("Embedding", 3, unit="images") as advance:
        advance()
        advance(2, note="loss 1")
    assert recorder.told == [("Embedding", 3, "images"), (1, None), (2, "loss 1"), "end"]
    with task("Embedding", 3) as advance:
        advance()
    assert len(recorder.told) == 4


def test_without_an_observer_nothing_is_printed(capfd: pytest.CaptureFixture[str]):
    with task("Embedding", None) as advance:
        advance(5, note="x")
    assert capfd.readouterr() == ("", "")
