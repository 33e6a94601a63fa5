import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.footprint import bytes_on_disk, peak_rss_mb
from edgeclip.evaluate.latency import percentiles, time_calls


def test_calls_are_timed_in_turn_after_the_warm_up():
    order: list[str] = []
    times = time_calls({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=4, warmup=2)
    assert order == ["a", "b"] * 6
    assert {name: len(t) for name, t in times.items()} == {"a": 4, "b": 4}
    assert min(times["a"]) >= 0


def test_the_budget_ends_the_timing_but_three_rounds_are_made():
    assert len(time_calls({"a": lambda: None}, repeats=1000, budget_s=0.0)["a"]) == 3


def test_percentiles_by_hand():
    result = percentiles([float(n) for n in range(1, 102)])
    assert (result.p50, result.p95) == (51.0, 96.0)


def test_bytes_on_disk(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "sub" / "b").write_bytes(b"123")
    assert bytes_on_disk(tmp_path) == 8
    assert bytes_on_disk(tmp_path / "a") == 5


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="other systems have no peak of their own program")
def test_peak_memory_is_this_programs_own_not_its_parents():
    code = "from edgeclip.evaluate.footprint import peak_rss_mb; print(peak_rss_mb())"
    ballast = b"x" * 400_000_000
    child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert len(ballast) == 400_000_000
    assert peak_rss_mb() > 400
    assert 5 < child < 200


def test_the_environment_names_versions_and_processor():
    found = environment(threads=2)
    assert found["threads"] == 2
    assert found["cpu_count"] == os.cpu_count()
    assert {"python", "numpy", "torch", "edgeclip", "machine", "cpu_flags"} <= set(found)
