"""Contenders in turn: no more of them open at once than memory allows, and one that fails once is opened again."""

from pathlib import Path

import pytest

from edgeclip.measure.child import ChildError
from edgeclip.tune.costs import Costs, Member
from edgeclip.tune.trials import Trials
from tests.tune.conftest import StandIn

MEMBERS: list[Member] = [("image", kind, 1) for kind in ("fp32", "int8", "int4")]


@pytest.fixture
def opened(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes were open after each start."""
    alive: set[StandIn] = set()
    counts: list[int] = []
    usual = stand_in.__init__

    def start(self: StandIn, *arguments: object, **options: object) -> None:
        usual(self, *arguments, **options)
        alive.add(self)
        counts.append(len(alive))

    monkeypatch.setattr(stand_in, "__init__", start)
    monkeypatch.setattr(stand_in, "end", lambda self: alive.discard(self))
    return counts


def costs(folder: Path, cap_mb: float | None) -> Costs:
    found = Costs(Trials(folder, "model"), folder / "crops.npy", folder / "texts.json", cap_mb)
    figures = {"ms": 1.0, "rss_mb": 60.0, "open_ms": 1.0, "size_mb": 1.0}
    for tower, kind, threads in MEMBERS:
        found.trials.run(f"{tower} {kind}, threads {threads}", lambda: figures)
    return found


@pytest.mark.parametrize(("cap_mb", "most", "starts"), [(None, 3, 3), (1000, 3, 3), (150, 2, 6), (10, 1, 9)])
def test_as_many_are_open_at_once_as_memory_allows(
    opened: list[int], tmp_path: Path, cap_mb: float | None, most: int, starts: int
):
    rounds = costs(tmp_path, cap_mb).rounds(0, 4, MEMBERS)
    assert [set(times) for times in rounds] == [set(MEMBERS)] * 4
    assert max(opened) == most
    assert len(opened) == starts


def test_one_that_fails_costs_its_round_alone(stand_in: type[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usual, asked = stand_in.time, []

    def time(self: StandIn, calls: int, **options: object) -> dict[str, list[float]]:
        asked.append(self)
        if len(asked) == 2:
            raise ChildError("needed more than 10 MB")
        assert len(asked) < 2 or asked[1] is not self  # it is never asked again
        return usual(self, calls, **options)

    monkeypatch.setattr(stand_in, "time", time)
    found = costs(tmp_path, None)
    assert len(found.rounds(0, 3, MEMBERS)) == 2
    assert [trial.failed for trial in found.trials.failures] == ["needed more than 10 MB"]
