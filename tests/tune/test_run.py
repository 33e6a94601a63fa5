"""A budget met on a tiny model: the winner and its proof, nothing that fits, kills at named points."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.repocard import metadata_load
from PIL import Image

from edgeclip import tune
from edgeclip.bundle import read_bundle, verify_files
from edgeclip.errors import ConfigError, DataError
from edgeclip.evaluate.judge import TeachersRanking
from edgeclip.report.compressed_html import write_card_html
from edgeclip.report.model_card import write_model_card
from edgeclip.runtime import load, self_test
from edgeclip.tune.record import read_card
from edgeclip.tune.trials import TRIALS, Trials
from tests.once import MadeOnce
from tests.tune.conftest import SETTINGS, Finished, StandIn
from tests.tune.killed_run import TORN
from tests.tune.test_trials import fail


def test_the_fastest_that_keeps_the_limits_is_chosen_with_its_proof(finished: Finished):
    out, card = finished
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
    assert not out.with_name("small-trials").exists()


def test_pictures_without_captions_are_judged_by_the_teachers_ranking(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photos, out = tmp_path / "photos", tmp_path / "small"
    photos.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    settings = SETTINGS | {"data": str(photos)}
    with pytest.raises(DataError, match=r"one text for every picture agrees by .* give `data` with captions"):
        tune.compress(mini_checkpoint, out, **settings)
    monkeypatch.setattr(TeachersRanking, "check", lambda self: None)
    card = tune.compress(mini_checkpoint, out, **settings)
    assert (card.proof.truth, card.proof.chosen_on, card.proof.reported_on) == ("teacher", 6, 5)
    assert 0 <= card.proof.same_first <= 100
    assert card.proof.drop.r1.value >= 0  # nothing is gained on the teacher by its own ranking
    released = read_bundle(out).manifest.card
    assert released.truth == "teacher"
    assert released.teacher_i2t.r1.value == 100
    assert released.teacher_i2t.r1.value - released.i2t.r1.value < 20
    which = "5 pictures of photos without captions, by the teacher's own ranking for 5 built-in texts"
    assert which in released.summary
    page = write_card_html(out).read_text()
    assert which in " ".join(page.replace("&#39;", "'").split())
    (readme,) = write_model_card(out, name="me/small", licence="mit")
    assert which in readme.read_text()
    assert "model-index" not in metadata_load(readme)  # where it would be taken for recall


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
    once: MadeOnce,
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "killed"
    settings = SETTINGS | {"distill": distill}
    usual = Trials.run
    made = once("nothing", lambda folder: None).parent
    told = (mini_checkpoint, out, after, json.dumps(settings), made)
    command = [sys.executable, "-m", "tests.tune.killed_run", *map(str, told)]
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


def test_other_pairs_forget_the_trials(stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path):
    out = tmp_path / "other"
    tune.compress(mini_checkpoint, out, max_image_ms=1.0, **SETTINGS)
    before = stand_in.asked.total()
    tune.compress(mini_checkpoint, out, max_image_ms=1.0, **{**SETTINGS, "pairs": 7})
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


def test_a_teacher_that_guesses_is_refused_before_other_graphs_are_made(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def guesses(found: object) -> None:
        raise DataError("a teacher that guesses", expected="one that knows", fix="take it")

    monkeypatch.setattr("edgeclip.tune.search.check_better_than_chance", guesses)
    with pytest.raises(DataError, match="a teacher that guesses"):
        tune.compress(mini_checkpoint, tmp_path / "none", **SETTINGS)
    lines = (tmp_path / "none-trials" / TRIALS).read_text().splitlines()[1:]
    written = [name for line in lines if (name := json.loads(line)["name"]).startswith("graphs of")]
    assert written == ["graphs of fp32"]
