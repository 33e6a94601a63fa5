"""Static int8 in OpenVINO: tried where that can run it, chosen where it is fastest, and said of the bundle."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeclip import tune
from edgeclip.bundle import read_bundle
from edgeclip.checkpoint import Checkpoint
from edgeclip.evaluate.environment import environment
from edgeclip.report.compressed_html import write_card_html
from edgeclip.runtime import engine, load, self_test
from edgeclip.tune import again, run
from edgeclip.tune.candidates import KINDS, TEACHER, kinds_of
from edgeclip.tune.costs import draft_folder
from tests.tune.conftest import SETTINGS, StandIn

KIND = KINDS["static int8, OpenVINO"]
REFUSED = "two kinds of engine in one bundle"


@pytest.fixture
def fastest(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, KIND.name, KIND)
    stand_in.times[draft_folder(Path(), KIND.name).name] = 0.5
    monkeypatch.setattr(engine, "cpu_flags", lambda: {"avx_vnni"})


@pytest.mark.usefixtures("fastest")
def test_it_is_chosen_where_it_is_fastest_and_the_bundle_says_so(
    mini_checkpoint: Path, tmp_path: Path, edgeclip_here, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    out = tmp_path / "out"
    card = tune.compress(mini_checkpoint, out, **SETTINGS)
    assert (card.winner.image, card.winner.text) == (KIND.name, KIND.name)
    assert "openvino" in card.environment
    opened = draft_folder(Path(), KIND.name).name
    assert (stand_in.asked[f"open  {opened} 1"], stand_in.asked["open  fp32 1"]) == (
        1,
        1,
    )  # each engine without a graph
    for tried in card.tried:
        assert (tried.candidate.image == KIND.name) == (tried.candidate.text == KIND.name), REFUSED
    manifest = read_bundle(out).manifest
    assert (manifest.engine, manifest.precisions) == ("openvino", "int8, in OpenVINO")
    with load(out, cache=None) as theirs, load(out, cache=None, engine="onnxruntime") as ours:
        assert theirs.engine == "openvino"
        assert min(*self_test(theirs).values(), *self_test(ours).values()) > 0.999
    assert KIND.name in write_card_html(out).read_text()
    assert "precision   int8, in OpenVINO" in edgeclip_here("inspect", out).stdout
    elsewhere = {name: said for name, said in environment(1).items() if name != "openvino"} | {"onnxruntime": "9.9"}
    monkeypatch.setattr(again, "environment", lambda threads: elsewhere)
    monkeypatch.setattr(again, "measured_again", lambda bundle, threads: card.figures)
    told = "\n".join(again.changes(read_bundle(out)))
    assert f"openvino: {card.environment['openvino']} where it was chosen, none here" in told
    assert "9.9" not in told


def test_trials_of_another_version_are_not_gone_on_with(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch):
    pairs = SimpleNamespace(pixels=np.zeros(1, np.uint8), captions=[])
    roles = SimpleNamespace(calibrate=pairs, choose=pairs, report=pairs)
    found = set()
    for versions in ({}, {"openvino": "1"}, {"openvino": "2"}, {"onnxruntime": "1", "openvino": "2"}):
        monkeypatch.setattr(run, "environment", lambda threads, versions=versions: versions)
        found.add(run._depends_on(checkpoint, roles))
    assert len(found) == 4


@pytest.mark.usefixtures("fastest")
@pytest.mark.parametrize("lacks", ["openvino", "VNNI"])
def test_it_is_not_tried_where_it_cannot_run(lacks: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: object())
    assert KIND in kinds_of(TEACHER)
    if lacks == "openvino":
        monkeypatch.setattr(engine, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(engine, "cpu_flags", lambda: {"avx2"})
    assert KIND not in kinds_of(TEACHER)
