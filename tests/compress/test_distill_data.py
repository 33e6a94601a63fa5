"""What is trained on is never measured on."""

import shutil
from pathlib import Path

import pytest

from edgeclip.compress.distill_data import load_split
from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.config import PreprocessConfig
from edgeclip.errors import DataError

CONFIG = PreprocessConfig.clip(32)


def settings(data: Path | str, **options: object) -> DistillSettings:
    return DistillSettings(model="m", recipe="r", data=str(data), workers=0, threads=1, **options)


def test_a_fifth_of_a_data_set_is_set_aside(captioned_folder: Path):
    data = load_split(settings(captioned_folder), 6400, CONFIG)
    trained = {record.name for record in data.training}
    assert (len(trained), len(data.calibration), len(data.measured)) == (16, 3, 5)
    assert not trained & set(data.measured.names)
    assert not trained & set(data.calibration.names)
    assert data.choose is data.calibration  # too few for two roles
    fewer = load_split(settings(captioned_folder, pairs=3, samples=7), 6400, CONFIG)
    assert (len(fewer.training), len(fewer.measured)) == (7, 3)
    assert fewer.measured.names == data.measured.names[:3]
    assert load_split(settings(captioned_folder, seed=1), 6400, CONFIG).measured.names != data.measured.names
    assert len(load_split(settings(captioned_folder), 12, CONFIG).training) == 12  # the recipe's number is a limit


def test_scenes_are_measured_in_another_world():
    data = load_split(settings("builtin:tabletop", pairs=4), 10, CONFIG)
    assert [record.name.split("-")[1] for record in data.training] == ["train"] * 10
    assert [name.split("-")[1] for name in data.measured.names] == ["evaluation"] * 4
    assert [name.split("-")[1] for name in data.calibration.names] == ["calibrate"] * 64
    assert data.choose.names == data.calibration.names[16:32]  # a bundle is calibrated on the first 16


def test_recall_is_not_measured_on_one_image(captioned_folder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(captioned_folder, tmp_path / "pictures"))
    for name in load_split(settings(folder), 6400, CONFIG).measured.names[1:]:
        (folder / "images" / name).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"of whose 5 images to measure on only one can be read.*see .*\.jpg"):
        load_split(settings(folder), 6400, CONFIG)


@pytest.mark.parametrize(("samples", "left"), [(20, None), (None, 8)])
def test_too_little_data(captioned_folder: Path, tmp_path: Path, samples: int | None, left: int | None):
    folder = captioned_folder
    if left is not None:
        (tmp_path / "images").symlink_to(captioned_folder / "images")
        lines = (captioned_folder / "captions.csv").read_text().splitlines()
        (tmp_path / "captions.csv").write_text("\n".join([lines[0], *lines[1:5]]))  # two images
        folder = tmp_path
    with pytest.raises(DataError, match="to calibrate on, for `samples`"):
        load_split(settings(folder, samples=samples), 10, CONFIG)
