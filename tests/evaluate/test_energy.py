"""Counters of packages, not of their parts; nothing where they can't be read or began anew."""

from pathlib import Path

import pytest

from edgeclip.evaluate.energy import joules, joules_since


def write(powercap: Path, domain: str, microjoules: int) -> None:
    (powercap / domain).mkdir(exist_ok=True)
    (powercap / domain / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path):
    write(tmp_path, "intel-rapl:0", 5_000_000)
    write(tmp_path, "intel-rapl:1", 1_000_000)
    write(tmp_path, "intel-rapl:0:0", 4_000_000)
    before = joules(tmp_path)
    assert before == {"intel-rapl:0": 5, "intel-rapl:1": 1}
    write(tmp_path, "intel-rapl:0", 6_500_000)
    assert joules_since(before, tmp_path) == pytest.approx(1.5)
    write(tmp_path, "intel-rapl:1", 0)
    assert joules_since(before, tmp_path) is None


def test_without_counters_there_is_nothing(tmp_path: Path):
    assert joules(tmp_path) is None
    assert joules(tmp_path / "none") is None
