"""A search without processes: a stand-in for the process whose times are given, and which embeds in this one."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgeclip.image import Crop
from edgeclip.measure.child import ChildError
from edgeclip.runtime import load
from edgeclip.tune import costs, search
from edgeclip.tune.candidates import KINDS

TIMES = {"fp32": 4.0, "fp16": 4.0, "int8": 2.0, "int8, 1/8 float": 2.5, "int8, 1/4 float": 3.0, "int4": 3.5}
"""Milliseconds of either tower by the draft's kind."""


class StandIn:
    """What `BundleProcess` does, with `times` by folder and `asked` to count."""

    asked: Counter[str] = Counter()
    times: dict[str, float] = {}
    failing: set[str] = set()

    def __init__(self, folder: Path, crops: Path, texts: Path, *, threads: int, towers, cap_mb, timeout_s) -> None:
        self.folder, self.crops, self.texts, self.towers, self.threads = folder, crops, texts, list(towers), threads

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def _ask(self, what: str) -> None:
        name = f"{what} {'/'.join(self.towers)} {self.folder.name} {self.threads}"
        StandIn.asked[name] += 1
        if self.folder.name in StandIn.failing:
            raise ChildError(f"took more than 1 s: {name}")

    def open(self):
        self._ask("open")
        return {"open_ms": 10.0, "cold_ms": 20.0, "rss_mb": 50.0 + 10 * len(self.towers)}

    def time(self, calls, warmup=1, seconds=60):
        return {
            tower: [StandIn.times.get(self.folder.name, 2.0) * (1 + 0.001 * n) for n in range(calls)]
            for tower in self.towers
        }

    def memory(self):
        return {"rss_mb": 70.0, "pss_mb": 60.0}

    def embed(self, out: Path):
        self._ask("embed")
        clip = load(self.folder, threads=1, cache=None)
        rows = (
            clip.encode_image([Crop(crop) for crop in np.load(self.crops)])
            if self.towers == ["image"]
            else clip.encode_text(json.loads(self.texts.read_text()))
        )
        np.save(out, rows)
        return {"rows": len(rows)}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """See `put_in`."""
    return put_in(monkeypatch)


def put_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """Three kinds, one thread, given times; a teacher that guesses is let through."""
    StandIn.asked, StandIn.failing = Counter(), set()
    StandIn.times = {costs.draft_folder(Path(), kind).name: ms for kind, ms in TIMES.items()}
    monkeypatch.setattr(costs, "BundleProcess", StandIn)
    monkeypatch.setattr(search, "check_better_than_chance", lambda teacher: None)
    monkeypatch.setattr(search, "thread_counts", lambda: (1,))
    for name in set(KINDS) - {"fp32", "int8", "int4"}:
        monkeypatch.delitem(KINDS, name)
    monkeypatch.setattr("edgeclip.tune.arguments.check_pairs", lambda settings: None)
    return StandIn
