"""A model in a process of its own: timed in turns, torch-free where it can be, and telling why it failed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.measure.fresh import FreshProcess

CALLS = {"image", "text", "i2t", "t2i"}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "query.png")
    return tmp_path / "query.png"


def imported(process: FreshProcess, name: str) -> bool:
    """Whether a library is in a process, by the files that it has mapped."""
    return name in Path(f"/proc/{process._process.pid}/maps").read_text()


@pytest.mark.slow
def test_bundles_are_timed_without_torch_and_checkpoints_with(
    bundles: dict[str, Path], mini_checkpoint: Path, picture: Path
):
    sources = (bundles["int8"], mini_checkpoint)
    with (
        FreshProcess(sources[0], picture, ["a", "b"], threads=1, repeats=3) as bundle,
        FreshProcess(sources[1], picture, ["a", "b"], threads=1, repeats=3) as checkpoint,
    ):
        for process in (bundle, checkpoint, bundle):
            answer = process.measure()
            assert answer["times"].keys() == CALLS
            assert all(len(times) == 3 and min(times) > 0 for times in answer["times"].values())
            assert answer["peak_rss_mb"] > 20
        assert not imported(bundle, "libtorch")
        assert imported(checkpoint, "libtorch")


@pytest.mark.slow
def test_a_process_that_fails_says_why(tmp_path: Path, picture: Path):
    with (
        FreshProcess(tmp_path / "none", picture, ["a"], threads=1, repeats=3) as process,
        pytest.raises(RuntimeError, match=r"the process ended with 1: .*unknown model"),
    ):
        process.measure()
