"""Where a run may write: not over what no earlier run has made, and never over the teacher."""

import shutil
from pathlib import Path

import pytest

from edgeclip.compress.experiment import check_places
from edgeclip.errors import ConfigError


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_nothing_there_and_an_earlier_run_are_fine(tmp_path: Path, bundles: dict[str, Path]):
    check_places(tmp_path / "new", "teacher")
    shutil.copytree(bundles["int8"], tmp_path / "bundle")
    for name in ("checkpoint/config.json", "results.json", "state/stage-1.pt"):
        write(tmp_path / name)
    check_places(tmp_path, "teacher")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["checkpoint/thesis.txt", "cache/index.json"], r"holds more than a checkpoint: thesis\.txt"),
        (["checkpoint/config.json"], "checkpoint without the .*cache that distilling leaves"),
        (["results.json"], r"results\.json without the "),
        (["edgeclip.json"], r"edgeclip\.json without the "),
        (["bundle/thesis.txt"], "which is no bundle"),
        (["bundle/thesis.txt", "cache/index.json"], "which is no bundle"),
    ],
)
def test_what_is_in_the_way_is_named(tmp_path: Path, names: list[str], message: str):
    for name in names:
        write(tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        check_places(tmp_path, "teacher")


@pytest.mark.parametrize("model", ["checkpoint", "checkpoint/model.safetensors", "sub/../checkpoint"])
def test_the_teacher_is_not_replaced(tmp_path: Path, model: str):
    """Not even by a run that goes on."""
    write(tmp_path / "cache" / "index.json")
    with pytest.raises(ConfigError, match="checkpoint, which is the teacher"):
        check_places(tmp_path, str(tmp_path / model))
