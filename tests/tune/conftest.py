"""A search without processes: a stand-in for the process whose times are given, and which embeds in this one."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeclip import tune
from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.data.prepare import prepare_parts
from edgeclip.data.split import scenes
from edgeclip.distill.make_student import Share, make_student
from edgeclip.errors import EdgeclipError
from edgeclip.files import as_json
from edgeclip.image import Crop
from edgeclip.measure.child import ChildError
from edgeclip.runtime import load
from edgeclip.tune import costs, search, students
from edgeclip.tune.candidates import KINDS
from edgeclip.tune.drafts import write_floats
from edgeclip.tune.record import Compressed
from edgeclip.tune.training import student_folder
from edgeclip.tune.trials import TrialError
from tests.once import MadeOnce, digest

SETTINGS = {"data": "builtin:tabletop", "pairs": 8, "max_drop": 100.0, "workers": 0}

TIMES = {"fp32": 4.0, "int8": 2.0, "int4": 3.5, "half int8": 1.6, "quarter int8": 1.0, "eighth int8": 0.5}
"""Milliseconds of either tower by the draft's kind; the others are not tried."""
TRAINED = {"view_s": 1.0, "training_s": 4.0}
"""Seconds, whatever is trained."""

Finished = tuple[Path, Compressed]
"""A bundle that `compress` made, and what it found."""


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
        self.end()

    def end(self):
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


def train_nothing(train, settings, recipe, images, epochs, students, *, place, cap_mb, timeout_s):
    """What calling `train` apart does, without training: a student shrunk to three quarters."""
    StandIn.asked[f"train {recipe}, {images} images, {epochs} epochs"] += 1
    if recipe in StandIn.failing:
        raise ChildError(f"took more than {timeout_s:g} s")
    folder = student_folder(students, recipe, images, epochs)
    teacher = load_checkpoint(settings.model)
    (pairs,) = prepare_parts([scenes("train", 0, 2)], teacher.preprocess_config, settings)
    student = make_student(teacher, Share(0.75, None, 1.0), teacher, pairs, None)
    save_checkpoint(student.model, student.preprocess_config, student.tokenizer, folder / "checkpoint")
    return TRAINED


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, once: MadeOnce) -> type[StandIn]:
    """See `put_in`."""
    return put_in(monkeypatch, once)


@pytest.fixture(scope="module")
def finished(mini_checkpoint: Path, once: MadeOnce, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The bundle of one run without limits, and what it found; nobody changes the bundle."""
    out = tmp_path_factory.mktemp("finished") / "small"
    with pytest.MonkeyPatch.context() as patch:
        put_in(patch, once)
        return out, tune.compress(mini_checkpoint, out, max_image_ms=50.0, **SETTINGS)


def called_here(once: MadeOnce) -> Callable[..., dict[str, Any]]:
    """What `called_apart` does, in this process; the float graphs of a model are made once."""

    def call(function: Callable[..., dict[str, Any]], *arguments: Any, **limits: object) -> dict[str, Any]:
        if function is not write_floats:
            try:
                return function(*arguments)
            except EdgeclipError as error:
                raise TrialError(str(error)) from error
        model, target, *rest = arguments

        def fill(folder: Path) -> None:
            (folder / "found.json").write_bytes(as_json(function(model, folder / "graphs", *rest)))

        made = once(f"floats-{digest(model, rest)}", fill)
        shutil.copytree(made / "graphs", target)
        return json.loads((made / "found.json").read_bytes())

    return call


def put_in(monkeypatch: pytest.MonkeyPatch, once: MadeOnce) -> type[StandIn]:
    """Three kinds and one of each student, one thread, given times; a teacher that guesses is let through."""
    StandIn.asked, StandIn.failing = Counter(), set()
    StandIn.times = {costs.draft_folder(Path(), kind).name: ms for kind, ms in TIMES.items()}
    monkeypatch.setattr(costs, "BundleProcess", StandIn)
    monkeypatch.setattr(search, "check_better_than_chance", lambda found: None)
    for place in ("drafts", "fused"):
        monkeypatch.setattr(f"edgeclip.tune.{place}.called_apart", called_here(once))
    monkeypatch.setattr(search, "thread_counts", lambda: (1,))
    for name in set(KINDS) - set(TIMES):
        monkeypatch.delitem(KINDS, name)
    monkeypatch.setattr(students, "called_apart", train_nothing)
    monkeypatch.setattr("edgeclip.tune.arguments.FEWEST_TO_TRAIN", 0)
    for place in ("edgeclip.tune.arguments", "edgeclip.tune.run"):
        monkeypatch.setattr(f"{place}.check_enough", lambda *few: None)
    return StandIn
