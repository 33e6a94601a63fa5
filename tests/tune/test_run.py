"""A budget met on a tiny model: the winner and its proof, nothing that fits, kills at named points."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeclip import tune
from edgeclip.bundle import read_bundle, verify_files
from edgeclip.errors import ConfigError, DataError
from edgeclip.runtime import load, self_test
from edgeclip.tune.record import read_card
from edgeclip.tune.trials import TRIALS, Trials
from tests.tune.conftest import StandIn
from tests.tune.killed_run import SETTINGS, TORN
from tests.tune.test_trials import fail


def test_the_fastest_that_keeps_the_limits_is_chosen_with_its_proof(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path
):
    out = tmp_path / "small"
    card = tune.compress(mini_checkpoint, out, **SETTINGS)
    assert card.fits
    assert (card.winner.image, card.winner.text, card.winner.threads) == ("int8", "int8", 1)
    assert (card.proof.chosen_on, card.proof.reported_on, card.relax) == (8, 8, {})
    assert read_card(out) == card
    bundle = read_bundle(out)
    verify_files(bundle)
    assert (bundle.manifest.precisions, bundle.manifest.threads) == ("int8", 1)
    assert bundle.manifest.card.pairs == 8
    with load(out) as clip:
        self_test(clip)
        assert "1 threads" in repr(clip)
    assert {tried.outcome for tried in card.tried if tried.candidate == card.winner} == {"chosen"}
    assert all(tried.outcome for tried in card.tried)
    assert len(card.tried) == 9
    assert list(card.sensitivity) == ["image", "text"]
    assert not (tmp_path / "small-trials").exists()


def test_each_tower_has_the_kind_that_is_fastest_for_it(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usual = stand_in.time

    def time(self: StandIn, calls: int, **options: object) -> dict[str, list[float]]:
        fast_text = self.folder.name == "fp32" and self.towers == ["text"]
        return {"text": [0.5] * calls} if fast_text else usual(self, calls, **options)

    monkeypatch.setattr(stand_in, "time", time)
    card = tune.compress(mini_checkpoint, tmp_path / "mixed", **SETTINGS)
    assert (card.winner.image, card.winner.text) == ("int8", "fp32")
    with load(tmp_path / "mixed", cache=None) as clip:
        assert clip.bundle.manifest.precisions == "int8 for images, fp32 for texts"
        self_test(clip)


def test_where_nothing_fits_the_closest_is_written_and_the_limit_to_relax_is_named(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path
):
    out = tmp_path / "fast"
    card = tune.compress(mini_checkpoint, out, max_image_ms=1.0, **SETTINGS)
    assert not card.fits
    assert card.winner.image == "int8"
    assert card.over.keys() == {"max_image_ms"}
    assert card.relax["max_image_ms"] == pytest.approx(2, rel=0.05)
    self_test(load(out, cache=None))
    before = stand_in.asked.copy()
    again = tune.compress(mini_checkpoint, out, max_image_ms=card.relax["max_image_ms"], **SETTINGS)
    assert again.fits
    assert not {name for name in stand_in.asked if stand_in.asked[name] > max(before[name], 1) and "bundle" not in name}


def test_what_fails_is_recorded_with_its_reason_and_the_rest_goes_on(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path
):
    stand_in.failing = {"int4"}
    card = tune.compress(mini_checkpoint, tmp_path / "rest", **SETTINGS)
    assert card.winner.image == "int8"
    assert [failure.trial for failure in card.failures] == ["image int4, threads 1", "text int4, threads 1"]
    assert all("took more than 1 s" in failure.reason for failure in card.failures)


@pytest.mark.slow
@pytest.mark.parametrize(("after", "distill"), [(1, False), (6, False), (16, False), (9, True)])
def test_a_killed_run_goes_on_with_the_same_winner_and_repeats_nothing(
    after: int,
    distill: bool,
    stand_in: type[StandIn],
    mini_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "killed"
    settings = SETTINGS | {"distill": distill}
    usual = Trials.run
    job = json.dumps(settings)
    command = [sys.executable, "-m", "tests.tune.killed_run", str(mini_checkpoint), str(out), str(after), job]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    path = tmp_path / "killed-trials" / TRIALS
    *finished, torn = path.read_bytes().splitlines()
    assert torn == TORN
    assert len(finished) == after + 1
    worked: list[str] = []

    def counted(self: Trials, name: str, work: object) -> object:
        def counting() -> object:
            worked.append(name)
            return work()

        return usual(self, name, counting)

    monkeypatch.setattr(Trials, "run", counted)
    card = tune.compress(mini_checkpoint, out, **settings)
    assert not {json.loads(line)["name"] for line in finished} & set(worked)
    assert len(worked) == len(set(worked))
    assert card.winner.image == card.winner.text == ("eighth int8" if distill else "int8")


def test_another_model_forgets_the_trials(stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path):
    out = tmp_path / "other"
    tune.compress(mini_checkpoint, out, max_image_ms=1.0, **SETTINGS)
    before = stand_in.asked.total()
    tune.compress(mini_checkpoint, out, max_image_ms=1.0, **{**SETTINGS, "seed": 1})
    assert stand_in.asked.total() == 2 * before


def test_without_any_candidate_it_says_so(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in.failing = {"fp32", "int8", "int4"}
    with pytest.raises(DataError, match=r"a teacher that failed .* \(embeddings of image fp32: took more than 1 s"):
        tune.compress(mini_checkpoint, tmp_path / "none", **SETTINGS)
    monkeypatch.setattr(stand_in, "open", lambda self: fail())
    stand_in.failing = set()
    with pytest.raises(ConfigError, match="no candidate"):
        tune.compress(mini_checkpoint, tmp_path / "no", **SETTINGS)
    assert not (tmp_path / "no").exists()
