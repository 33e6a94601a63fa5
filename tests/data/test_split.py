"""Roles are disjoint, whatever the set, the seed and the numbers."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclip.data.data_settings import DataOptions
from edgeclip.data.records import CaptionSet
from edgeclip.data.split import (
    CALIBRATE,
    CHOOSE,
    WORLDS,
    Part,
    back,
    calibrate_and_choose,
    order,
    to_choose,
    to_distill,
    to_make_a_bundle,
    to_measure,
    to_reproduce,
)
from edgeclip.errors import DataError

BUILTIN = "builtin:tabletop"
OPTIONS = DataOptions()


@given(total=st.integers(8, 3000), seed=st.integers(0, 2**32))
def test_what_makes_a_bundle_is_not_measured(total: int, seed: int):
    calibrate, choose = calibrate_and_choose(CaptionSet("set", range(total)), seed)
    measured = order(total, seed)[: total - sum(back(total))]
    parts = [set(calibrate.indices), set(choose.indices), set(measured)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == total
    assert len(calibrate) <= CALIBRATE
    assert len(choose) <= CHOOSE


def test_the_same_set_and_seed_give_the_same_pairs():
    assert order(1000, 3) == order(1000, 3)
    assert order(1000, 3) != order(1000, 4)
    assert sorted(order(1000, 3)) == list(range(1000))


def test_a_folder_is_measured_but_for_what_bundles_are_made_with(captioned_folder: Path):
    for seed in (0, 7):
        made = to_make_a_bundle(str(captioned_folder), seed=seed, options=OPTIONS)
        measured = to_measure(str(captioned_folder), samples=None, seed=seed, options=OPTIONS, all_scenes=0)
        assert (*map(len, made), len(measured)) == (3, 3, 18)
        assert not {*made[0].indices, *made[1].indices} & {*measured.indices}
    # Whoever names all images gets them.
    assert len(to_measure(str(captioned_folder), samples=24, seed=0, options=OPTIONS, all_scenes=0)) == 24
    with pytest.raises(DataError, match="`samples` 25 of 24 images"):
        to_measure(str(captioned_folder), samples=25, seed=0, options=OPTIONS, all_scenes=0)
    few = to_measure(str(captioned_folder), samples=25, seed=0, options=OPTIONS, all_scenes=0, at_most=True)
    assert few.indices == to_measure(str(captioned_folder), samples=None, seed=0, options=OPTIONS, all_scenes=0).indices


def test_each_role_has_scenes_of_its_own():
    assert len(set(WORLDS.values())) == len(WORLDS)
    calibrate, choose = to_make_a_bundle(BUILTIN, seed=0, options=OPTIONS)
    measured = to_measure(BUILTIN, samples=None, seed=0, options=OPTIONS, all_scenes=5)
    names = [{record.name for record in part.records} for part in (calibrate, choose, measured)]
    assert [len(part) for part in names] == [CALIBRATE, CHOOSE, 5]
    assert len(set.union(*names)) == CALIBRATE + CHOOSE + 5


def test_a_set_in_two_parts_is_calibrated_in_one_and_measured_in_the_other(captioned_folder: Path, tmp_path: Path):
    import json

    (tmp_path / "annotations").mkdir()
    for part, numbers in (("train2017", range(12)), ("val2017", range(12, 24))):
        (tmp_path / part).mkdir()
        for number in numbers:
            shutil.copy(captioned_folder / "images" / f"{number:03d}.jpg", tmp_path / part)
        content = {
            "images": [{"id": n, "file_name": f"{n:03d}.jpg"} for n in numbers],
            "annotations": [{"image_id": n, "caption": f"picture {n}"} for n in numbers],
        }
        (tmp_path / "annotations" / f"captions_{part}.json").write_text(json.dumps(content))
    made = to_make_a_bundle(str(tmp_path), seed=0, options=OPTIONS)
    measured = to_measure(str(tmp_path), samples=None, seed=0, options=OPTIONS, all_scenes=0)
    assert all(int(record.name[:3]) < 12 for part in made for record in part.records)
    assert sorted(record.name for record in measured.records) == [f"{n:03d}.jpg" for n in range(12, 24)]


def test_the_paper_trains_on_what_it_does_not_measure():
    training, measured = to_reproduce(BUILTIN, samples=100, val_fraction=0.2, seed=3, options=OPTIONS)
    assert (len(training), len(measured)) == (80, 20)
    assert len({*training.indices, *measured.indices}) == 100


@pytest.mark.parametrize(
    ("samples", "val_fraction", "message"),
    [(25, 0.2, "`samples` 25 of 24"), (10, 0.0, "`val_fraction` 0;"), (10, 1.0, "`val_fraction` 1;"), (2, 0.1, "0.1;")],
)
def test_impossible_reproductions(captioned_folder: Path, samples: int, val_fraction: float, message: str):
    with pytest.raises(DataError, match=message):
        to_reproduce(str(captioned_folder), samples=samples, val_fraction=val_fraction, seed=0, options=OPTIONS)


def test_a_student_is_trained_calibrated_and_measured_on_different_pairs(captioned_folder: Path):
    parts = to_distill(
        str(captioned_folder), samples=None, at_most=100, pairs=1000, calibrate=64, seed=0, options=OPTIONS
    )
    assert [len(part) for part in parts] == [16, 3, 5]
    assert len({index for part in parts for index in part.indices}) == 24


@pytest.mark.parametrize("pairs", [3, 8, 1000])
def test_a_choice_is_calibrated_made_and_reported_on_different_pairs(captioned_folder: Path, pairs: int):
    options = DataOptions()
    parts = to_choose(str(captioned_folder), pairs=pairs, calibrate=16, seed=3, options=options)
    assert [len(part) for part in parts] == [3, min(pairs, 11), min(pairs, 10), 0]
    taken = [index for part in parts for index in part.indices]
    assert len(taken) == len(set(taken))
    assert to_choose(str(captioned_folder), pairs=pairs, calibrate=16, seed=3, options=options) == parts
    worlds = [
        {record.name for record in part.records}
        for part in to_choose("builtin:tabletop", pairs=4, calibrate=2, train=3, seed=0, options=options)
    ]
    assert sum(map(len, worlds)) == len(set.union(*worlds))
    assert [len(world) for world in worlds] == [2, 4, 4, 3]


@pytest.mark.parametrize(("pairs", "chosen", "trained"), [(2, 2, 17), (1000, 5, 11)])
def test_students_are_trained_on_what_no_choice_is_made_with(
    captioned_folder: Path, pairs: int, chosen: int, trained: int
):
    def parts(train: int) -> tuple[Part, ...]:
        return to_choose(str(captioned_folder), pairs=pairs, calibrate=16, train=train, seed=3, options=OPTIONS)

    assert [len(part) for part in parts(100)] == [3, chosen, chosen, trained]
    assert len({index for part in parts(100) for index in part.indices}) == 3 + 2 * chosen + trained
    assert parts(4)[:3] == parts(100)[:3]  # however many are trained on
    assert parts(4)[3].indices == parts(100)[3].indices[:4]
