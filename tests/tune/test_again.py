"""A compressed bundle on another device, and a plan before anything is done."""

from pathlib import Path

import pytest

from edgeclip.bundle import read_bundle
from edgeclip.measure.bundle_process import BundleProcess
from edgeclip.tune import again
from edgeclip.tune.record import Figures
from tests.tune.conftest import Finished


def test_verify_says_what_is_other_here(edgeclip_here, finished: Finished, monkeypatch: pytest.MonkeyPatch):
    usual = again.environment
    monkeypatch.setattr(again, "environment", lambda threads: usual(threads) | {"cpu_flags": ["asimddp"]})
    slow = Figures(image_ms=60.0, text_ms=3.0, size_mb=1.0, rss_mb=70.0, open_ms=10.0)
    monkeypatch.setattr(again, "measured_again", lambda bundle, threads: slow)
    done = edgeclip_here("verify", finished[0])
    assert done.returncode == 0, done.stderr
    assert "asimddp here" in done.stdout
    assert "processor:" not in done.stdout
    assert "image: 2.024 ms where it was chosen, 60 here" in done.stdout
    assert "over its budget here: max_image_ms 60, with a limit of 50" in done.stdout


@pytest.mark.slow
def test_a_bundle_is_measured_again(bundles: dict[str, Path]):
    assert BundleProcess is again.BundleProcess
    figures = again.measured_again(read_bundle(bundles["int8"]), threads=1)
    assert min(figures.image_ms, figures.text_ms, figures.size_mb, figures.open_ms) > 0


def test_a_dry_run_tells_the_plan_and_writes_nothing(edgeclip_here, tmp_path: Path):
    done = edgeclip_here("compress", "builtin:tabletop", "--dry-run", "--out", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    *steps, total = done.stdout.splitlines()
    assert "decode 2016 pictures" in steps[0]
    assert any("int8" in step and "int4" in step for step in steps)
    assert "in all" in total
    assert list(tmp_path.iterdir()) == []
