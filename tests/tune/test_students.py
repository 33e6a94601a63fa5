"""Students as candidates: how long they are trained, which sizes are tried, and the process that trains one."""

from pathlib import Path

import pytest

from edgeclip import tune
from edgeclip.bundle import read_bundle
from edgeclip.checkpoint import load_checkpoint
from edgeclip.distill.recipe import load_recipe
from edgeclip.report.compressed import sentences
from edgeclip.runtime import load, self_test
from edgeclip.shrink.plan import count_parameters
from edgeclip.tune import candidates
from edgeclip.tune.apart import called_apart
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.students import Length, bisect, longest, longest_recipes, training_expected
from edgeclip.tune.training import student_folder, train
from edgeclip.tune.trials import TrialError
from tests.tune.conftest import SETTINGS, StandIn

COSTS = {"half": {"view_s": 0.01, "step_s": 0.5}, "quarter": {"view_s": 0.008, "step_s": 0.3}}


@pytest.mark.parametrize(
    ("seconds", "available", "length"),
    [
        (1080, 100_000, Length(17_984, 4)),  # 1080 / (.01 + 4 * (.5 + .3) / 64) = 18000, in whole batches
        (1e6, 100_000, Length(32_000, 4)),  # what the recipes ask for
        (1080, 300, Length(256, 336)),  # (1080 - 2.56) / .8 = 1346 steps of 4 to an epoch
        (1e6, 300, Length(256, 500)),  # the 2,000 steps that the recipes ask for
        (3, 100_000, None),
    ],
)
def test_a_training_is_as_long_as_the_time_allows(seconds: float, available: int, length: Length | None):
    assert longest(longest_recipes(), COSTS, seconds, available) == length


@pytest.mark.parametrize(
    ("keeping", "tried"),
    [
        ({"half", "quarter", "eighth"}, ["quarter", "eighth"]),
        ({"half", "quarter"}, ["quarter", "eighth"]),
        ({"half"}, ["quarter", "half"]),
        (set(), ["quarter", "half"]),
    ],
)
def test_sizes_are_tried_from_the_middle(keeping: set[str], tried: list[str]):
    asked: list[str] = []

    def keeps(size: str) -> bool:
        asked.append(size)
        return size in keeping

    bisect(candidates.RECIPES, keeps)
    assert asked == tried


def test_every_recipe_is_there_and_smaller_than_the_one_before():
    fractions = [load_recipe(name).shrink.fractions[-1] for name in candidates.RECIPES]
    assert fractions == sorted(fractions, reverse=True)
    assert {kind.recipe for kind in candidates.KINDS.values() if kind.source in candidates.RECIPES} == set(
        candidates.RECIPES
    )


def test_images_and_texts_of_different_models_make_no_candidate():
    kinds = candidates.KINDS
    assert kinds["int8, 50% fused"].pairs_with(kinds["int4"])
    assert not kinds["int4"].pairs_with(kinds["int8, 50% fused"])
    assert kinds["half int8"].pairs_with(kinds["half int4"])
    assert not kinds["half int8"].pairs_with(kinds["int8"])
    assert not kinds["half int8"].pairs_with(kinds["quarter int8"])


def test_a_student_that_keeps_the_accuracy_wins(stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path):
    out = tmp_path / "small"
    card = tune.compress(mini_checkpoint, out, distill=True, **SETTINGS)
    assert (card.winner.image, card.winner.text) == ("eighth int8", "eighth int8")
    assert {tried.candidate.image for tried in card.tried} == {"fp32", "int8", "int4", "quarter int8", "eighth int8"}
    assert len(card.tried) == 9 + 1 + 1
    costs = {name: {"view_s": 1 / 256, "step_s": 1.0} for name in ("half", "quarter")}
    length = longest(longest_recipes(), costs, 0.7 * 20 * 60, 32_000)
    assert {name: (s.images, s.epochs) for name, s in card.students.items()} == {
        "quarter int8": length,
        "eighth int8": length,
    }
    assert card.student == card.students["eighth int8"]
    assert "--recipe eighth` would make" in "\n".join(sentences(card))
    bundle = read_bundle(out)
    assert bundle.manifest.teacher == card.model == str(mini_checkpoint)
    assert count_parameters(bundle.config) < count_parameters(load_checkpoint(str(mini_checkpoint)).config)
    with load(out, cache=None) as clip:
        self_test(clip)


def test_a_training_that_fails_is_recorded_and_a_larger_size_is_tried(
    stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path
):
    stand_in.failing = {"quarter"}
    card = tune.compress(mini_checkpoint, tmp_path / "small", distill=True, **SETTINGS)
    assert card.students == {}
    assert [failure.trial for failure in card.failures] == ["student quarter, 256 images, 1 epochs"]
    assert card.winner.image == "int8"


def test_a_budget_without_time_for_a_step_says_so(stand_in: type[StandIn], mini_checkpoint: Path, tmp_path: Path):
    card = tune.compress(mini_checkpoint, tmp_path / "small", distill=True, time_budget="5s", **SETTINGS)
    assert [failure.trial for failure in card.failures] == ["students in 4 s"]
    assert "a step takes 1.0 s" in card.failures[0].reason
    assert card.winner.image == "int8"


def test_the_plan_says_what_is_trained_and_for_how_long():
    settings = CompressSettings(model="m", distill=True, time_budget="30m")
    words, seconds = training_expected(settings, 0.01, 100_000)
    assert words.startswith("distil two of half, quarter, eighth on ")
    assert 0.9 * 0.7 * 1800 < seconds <= 0.7 * 1800
    assert training_expected(settings, 100.0, 100_000)[1] == 0


def test_too_few_pairs_to_train_on_are_refused(mistake, captioned_folder: Path, tmp_path: Path):
    line = mistake("compress", "builtin:tabletop", "--data", captioned_folder, "--distill", "--out", tmp_path / "new")
    assert "--distill with 11 pairs" in line
    assert "at least 256" in line


@pytest.mark.slow
def test_a_student_is_trained_in_a_process_of_its_own(mini_checkpoint: Path, tmp_path: Path):
    settings = CompressSettings(model=str(mini_checkpoint), distill=True, pairs=8, workers=0)

    def train_apart(images: int) -> dict[str, float]:
        return called_apart(train, settings, "half", images, 2, tmp_path, place=tmp_path, cap_mb=None)

    assert train_apart(64).keys() == {"view_s", "training_s"}
    folder = student_folder(tmp_path, "half", 64, 2)
    student = load_checkpoint(str(folder / "checkpoint"))
    assert count_parameters(student.config) < count_parameters(load_checkpoint(str(mini_checkpoint)).config)
    assert len((folder / "state" / "stage-1.jsonl").read_text().splitlines()) == 2
    weights = (folder / "checkpoint" / "model.safetensors").read_bytes()
    train_apart(64)  # goes on from the state, which is that of the end
    assert (folder / "checkpoint" / "model.safetensors").read_bytes() == weights
    with pytest.raises(TrialError, match="batch"):
        train_apart(8)
